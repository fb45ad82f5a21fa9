/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/codec.h"

#include <xxhash.h>

#include "base/util.h"
#include "image/codec_internal.h"

int encode_inventory(struct record *record,
		     const struct image_inventory *inventory,
		     const struct image_part *parts, size_t n_parts)
{
	_cleanup_free_ Snapuffd__Part *list =
		calloc(n_parts + 1, sizeof(*list));
	_cleanup_free_ Snapuffd__Part **refs =
		calloc(n_parts + 1, sizeof(*refs));
	Snapuffd__Inventory message = SNAPUFFD__INVENTORY__INIT;
	Snapuffd__Seal seal = SNAPUFFD__SEAL__INIT;
	size_t start;
	int r;

	if (!list || !refs)
		return -ENOMEM;
	for (size_t i = 0; i < n_parts; i++) {
		snapuffd__part__init(&list[i]);
		list[i].name = parts[i].name;
		list[i].size = parts[i].size;
		list[i].xxh3 = parts[i].xxh3;
		refs[i] = &list[i];
	}

	message.version = inventory->version;
	message.kind = inventory->kind == IMAGE_KIND_QEMU
			       ? SNAPUFFD__INVENTORY__KIND__QEMU
			       : SNAPUFFD__INVENTORY__KIND__PROCESS;
	message.complete = inventory->complete;
	message.tool_version = inventory->tool_version;
	message.host = inventory->host;
	message.kernel = inventory->kernel;
	SET(message, pid, (uint32_t)inventory->pid);
	SET(message, started_unix_ns, inventory->started_unix_ns);
	SET(message, frozen_unix_ns, inventory->frozen_unix_ns);
	message.n_parts = n_parts;
	message.parts = refs;
	message.n_unsafe = inventory->n_unsafe;
	message.unsafe = inventory->unsafe;

	r = record_init(record, IMAGE_MAGIC_INVENTORY);
	if (r)
		return r;
	start = record->len + sizeof(uint32_t);
	r = record_append(record, &message.base);
	if (r)
		return r;
	seal.xxh3 = XXH3_64bits(record->data + start, record->len - start);
	return record_append(record, &seal.base);
}

int encode_regions_begin(struct record *regions, struct record *pagemap)
{
	int r = record_init(regions, IMAGE_MAGIC_REGIONS);

	return r ? r : record_init(pagemap, IMAGE_MAGIC_PAGEMAP);
}

static int encode_runs(struct record *pagemap, unsigned number,
		       const struct image_run *runs, size_t n)
{
	uint64_t first[IMAGE_RUNS_PER_MESSAGE], len[IMAGE_RUNS_PER_MESSAGE];
	uint64_t xxh3[IMAGE_RUNS_PER_MESSAGE];
	Snapuffd__Runs message = SNAPUFFD__RUNS__INIT;

	for (size_t i = 0; i < n; i++) {
		first[i] = runs[i].first;
		len[i] = runs[i].n;
		xxh3[i] = runs[i].xxh3;
	}
	message.region = number;
	message.n_first = message.n_n = message.n_xxh3 = n;
	message.first = first;
	message.n = len;
	message.xxh3 = xxh3;
	return record_append(pagemap, &message.base);
}

int encode_region(struct record *regions, struct record *pagemap,
		  unsigned number, const struct image_region *region)
{
	Snapuffd__Region message = SNAPUFFD__REGION__INIT;
	int r;

	message.name = region->name;
	message.address = region->address;
	message.length = region->length;
	message.page_size = region->page_size;
	message.backing = (Snapuffd__Region__Backing)region->backing;
	if (region->file)
		SET(message, file, bytes_of(region->file));
	message.pages_file = region->pages_file;
	if (region->pages_offset)
		SET(message, pages_offset, region->pages_offset);
	r = record_append(regions, &message.base);

	for (size_t i = 0; !r && i < region->n_runs;
	     i += IMAGE_RUNS_PER_MESSAGE)
		r = encode_runs(
			pagemap, number, region->runs + i,
			min_u64(region->n_runs - i, IMAGE_RUNS_PER_MESSAGE));
	return r;
}

int encode_machine(struct record *record, const struct image_machine *machine)
{
	size_t n_blocks = machine->n_blocks, n_disks = machine->n_disks;
	size_t n_dimms = machine->n_memory_devices;
	_cleanup_free_ Snapuffd__RamBlock *blocks =
		calloc(n_blocks + 1, sizeof(*blocks));
	_cleanup_free_ Snapuffd__RamBlock **block_refs =
		calloc(n_blocks + 1, sizeof(*block_refs));
	_cleanup_free_ Snapuffd__Disk *disks =
		calloc(n_disks + 1, sizeof(*disks));
	_cleanup_free_ Snapuffd__Disk **disk_refs =
		calloc(n_disks + 1, sizeof(*disk_refs));
	_cleanup_free_ Snapuffd__MemoryDevice *dimms =
		calloc(n_dimms + 1, sizeof(*dimms));
	_cleanup_free_ Snapuffd__MemoryDevice **dimm_refs =
		calloc(n_dimms + 1, sizeof(*dimm_refs));
	_cleanup_free_ ProtobufCBinaryData *argv =
		calloc(machine->n_args + 1, sizeof(*argv));
	Snapuffd__Machine message = SNAPUFFD__MACHINE__INIT;
	int r;

	if (!blocks || !block_refs || !disks || !disk_refs || !dimms ||
	    !dimm_refs || !argv)
		return -ENOMEM;

	for (size_t i = 0; i < n_blocks; i++) {
		const struct image_ram_block *block = &machine->blocks[i];

		snapuffd__ram_block__init(&blocks[i]);
		blocks[i].idstr = block->idstr;
		blocks[i].offset = block->offset;
		blocks[i].used_length = block->used_length;
		blocks[i].max_length = block->max_length;
		blocks[i].page_size = block->page_size;
		blocks[i].shared = block->shared;
		blocks[i].resizeable = block->resizeable;
		blocks[i].migratable = block->migratable;
		if (block->region >= 0)
			SET(blocks[i], region, (uint32_t)block->region);
		block_refs[i] = &blocks[i];
	}
	for (size_t i = 0; i < n_disks; i++) {
		const struct image_disk *disk = &machine->disks[i];

		snapuffd__disk__init(&disks[i]);
		disks[i].file = bytes_of(disk->file);
		disks[i].device = disk->device;
		disks[i].node_name = disk->node_name;
		disks[i].format = disk->format;
		SET(disks[i], read_only, disk->read_only);
		if (disk->has_stat) {
			SET(disks[i], size, disk->size);
			SET(disks[i], mtime_ns, disk->mtime_ns);
		}
		if (disk->overlay)
			SET(disks[i], overlay, bytes_of(disk->overlay));
		disk_refs[i] = &disks[i];
	}
	for (size_t i = 0; i < n_dimms; i++) {
		const struct image_memory_device *dimm =
			&machine->memory_devices[i];

		snapuffd__memory_device__init(&dimms[i]);
		dimms[i].id = dimm->id;
		dimms[i].memdev = dimm->memdev;
		dimms[i].address = dimm->address;
		dimms[i].size = dimm->size;
		SET(dimms[i], slot, dimm->slot);
		SET(dimms[i], node, dimm->node);
		dimm_refs[i] = &dimms[i];
	}
	for (size_t i = 0; i < machine->n_args; i++)
		argv[i] = bytes_of(machine->argv[i]);

	message.qemu_version = machine->qemu_version;
	message.machine_class = machine->machine_class;
	message.running = machine->running;
	message.n_argv = machine->n_args;
	message.argv = argv;
	message.n_ram_blocks = n_blocks;
	message.ram_blocks = block_refs;
	message.n_disks = n_disks;
	message.disks = disk_refs;
	message.n_memory_devices = n_dimms;
	message.memory_devices = dimm_refs;
	if (machine->cwd)
		SET(message, cwd, bytes_of(machine->cwd));
	if (machine->domain_xml)
		SET(message, domain_xml, bytes_of(machine->domain_xml));

	r = record_init(record, IMAGE_MAGIC_MACHINE);
	return r ? r : record_append(record, &message.base);
}

/* A histogram's message and the arrays that it points to. */
struct histogram_message {
	Snapuffd__Histogram message;
	uint32_t bucket[HISTOGRAM_BUCKETS];
	uint64_t count[HISTOGRAM_BUCKETS];
};

static Snapuffd__Histogram *fill_histogram(struct histogram_message *m,
					   const struct histogram *h)
{
	size_t n = 0;

	snapuffd__histogram__init(&m->message);
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (!h->counts[i])
			continue;
		m->bucket[n] = i;
		m->count[n++] = h->counts[i];
	}
	m->message.max_ns = h->max;
	m->message.n_bucket = m->message.n_count = n;
	m->message.bucket = m->bucket;
	m->message.count = m->count;
	return &m->message;
}

int encode_stats(struct record *record, const struct image_stats *stats)
{
	struct histogram_message faults, queue;
	Snapuffd__Stats message = SNAPUFFD__STATS__INIT;
	int r;

	message.pause_ns = stats->pause_ns;
	message.captured_ns = stats->captured_ns;
	message.duration_ns = stats->duration_ns;
	message.pages_total = stats->pages_total;
	message.pages_data = stats->pages_data;
	message.pages_zero = stats->pages_zero;
	message.pages_parent = stats->pages_parent;
	message.pages_fault = stats->pages_fault;
	message.bytes_written = stats->bytes_written;
	message.peak_buffer_bytes = stats->peak_buffer_bytes;
	SET(message, noted_pages, stats->noted_pages);
	SET(message, rearmed_pages, stats->rearmed_pages);
	message.faults = fill_histogram(&faults, &stats->faults);
	message.queue = fill_histogram(&queue, &stats->queue);

	r = record_init(record, IMAGE_MAGIC_STATS);
	return r ? r : record_append(record, &message.base);
}
