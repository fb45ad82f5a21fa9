/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/codec.h"

#include <xxhash.h>

#include "base/util.h"
#include "image/codec_internal.h"

/* A name in the image's directory, and nothing that leads out of it. */
static bool is_plain_file_name(const char *name)
{
	return *name && *name != '.' && !strchr(name, '/') &&
	       strlen(name) < 256;
}

static int copy_unsafe(const Snapuffd__Inventory *message,
		       struct image_inventory *inventory)
{
	int r = 0;

	inventory->unsafe =
		calloc(message->n_unsafe + 1, sizeof(*inventory->unsafe));
	if (!inventory->unsafe)
		return -ENOMEM;
	for (size_t i = 0; !r && i < message->n_unsafe; i++) {
		r = copy_string(message->unsafe[i], &inventory->unsafe[i]);
		inventory->n_unsafe += !r;
	}
	return r;
}

int decode_inventory(struct record *record, struct image_inventory *inventory,
		     struct image_part **parts, size_t *n_parts)
{
	_cleanup_message_ Snapuffd__Inventory *message = NULL;
	_cleanup_message_ Snapuffd__Seal *seal = NULL;
	size_t start = record->pos + sizeof(uint32_t), end;
	int r;

	*inventory = (struct image_inventory){};
	*parts = NULL;
	*n_parts = 0;

	message = NEXT(record, snapuffd__inventory__descriptor);
	if (!message)
		return -EBADMSG;
	if (message->version > IMAGE_VERSION) {
		inventory->version = message->version;
		return -EPROTONOSUPPORT;
	}
	end = record->pos;
	seal = NEXT(record, snapuffd__seal__descriptor);
	if (!seal || !record_at_end(record) ||
	    seal->xxh3 != XXH3_64bits(record->data + start, end - start))
		return -EBADMSG;
	if (message->kind != SNAPUFFD__INVENTORY__KIND__QEMU &&
	    message->kind != SNAPUFFD__INVENTORY__KIND__PROCESS)
		return -EBADMSG;

	inventory->version = message->version;
	inventory->kind = message->kind == SNAPUFFD__INVENTORY__KIND__QEMU
				  ? IMAGE_KIND_QEMU
				  : IMAGE_KIND_PROCESS;
	inventory->complete = message->complete;
	inventory->pid = (pid_t)message->pid;
	inventory->started_unix_ns = message->started_unix_ns;
	inventory->frozen_unix_ns = message->frozen_unix_ns;
	r = copy_string(message->tool_version, &inventory->tool_version);
	if (!r)
		r = copy_string(message->host, &inventory->host);
	if (!r)
		r = copy_string(message->kernel, &inventory->kernel);
	if (!r)
		r = copy_unsafe(message, inventory);
	if (r)
		return r;

	*parts = calloc(message->n_parts + 1, sizeof(**parts));
	if (!*parts)
		return -ENOMEM;
	for (size_t i = 0; i < message->n_parts; i++) {
		const Snapuffd__Part *part = message->parts[i];

		if (!is_plain_file_name(part->name))
			return -EBADMSG;
		(*parts)[i].size = part->size;
		(*parts)[i].xxh3 = part->xxh3;
		r = copy_string(part->name, &(*parts)[i].name);
		if (r)
			return r;
		++*n_parts;
	}
	return 0;
}

/* Only memory.core has more than one region, and something before them. */
static bool is_sound_place(const Snapuffd__Region *message)
{
	if (!is_plain_file_name(message->pages_file))
		return false;
	if (strcmp(message->pages_file, IMAGE_CORE))
		return !message->pages_offset;
	return message->pages_offset >= IMAGE_PAGE_SIZE &&
	       message->pages_offset <= REGION_MAX_LENGTH &&
	       message->pages_offset % IMAGE_PAGE_SIZE == 0;
}

static int decode_region(const Snapuffd__Region *message,
			 struct image_region *region)
{
	int r;

	if (!message->length || message->length > REGION_MAX_LENGTH ||
	    message->length % IMAGE_PAGE_SIZE ||
	    message->address > UINT64_MAX - message->length ||
	    message->page_size < IMAGE_PAGE_SIZE ||
	    message->page_size & (message->page_size - 1) ||
	    message->backing < SNAPUFFD__REGION__BACKING__ANON ||
	    message->backing > SNAPUFFD__REGION__BACKING__PRIVATE_FILE ||
	    !is_sound_place(message))
		return -EBADMSG;

	region->address = message->address;
	region->length = message->length;
	region->page_size = message->page_size;
	region->backing = (enum image_backing)message->backing;
	region->pages_offset = message->pages_offset;
	r = copy_string(message->name, &region->name);
	if (!r)
		r = copy_string(message->pages_file, &region->pages_file);
	if (!r && message->has_file) {
		region->file = string_of(message->file);
		if (!region->file)
			return -EBADMSG;
	}
	return r;
}

static int decode_runs(const Snapuffd__Runs *message,
		       struct image_region *regions, size_t n_regions)
{
	struct image_region *region;
	struct image_run *runs;
	size_t n = message->n_first;
	uint64_t next;

	if (message->region >= n_regions || !n || message->n_n != n ||
	    message->n_xxh3 != n)
		return -EBADMSG;
	region = &regions[message->region];
	next = region->n_runs ? region->runs[region->n_runs - 1].first +
					region->runs[region->n_runs - 1].n
			      : 0;

	runs = reallocarray(region->runs, region->n_runs + n, sizeof(*runs));
	if (!runs)
		return -ENOMEM;
	region->runs = runs;
	for (size_t i = 0; i < n; i++) {
		uint64_t n_pages = region->length / IMAGE_PAGE_SIZE;

		if (message->first[i] < next || message->first[i] >= n_pages ||
		    !message->n[i] || message->n[i] > IMAGE_RUN_MAX_PAGES ||
		    message->n[i] > n_pages - message->first[i])
			return -EBADMSG;
		next = message->first[i] + message->n[i];
		runs[region->n_runs++] = (struct image_run){
			.first = message->first[i],
			.n = message->n[i],
			.xxh3 = message->xxh3[i],
		};
	}
	return 0;
}

static int compare_places(const void *a, const void *b)
{
	const struct image_region *x = *(const struct image_region *const *)a;
	const struct image_region *y = *(const struct image_region *const *)b;
	int order = strcmp(x->pages_file, y->pages_file);

	if (order)
		return order;
	return x->pages_offset < y->pages_offset
		       ? -1
		       : x->pages_offset > y->pages_offset;
}

/*
 * Two regions in one place would overwrite each other, and what is between
 * those in memory.core would be covered by no checksum.
 */
static int check_places(const struct image_region *regions, size_t n,
			uint64_t *core_end)
{
	_cleanup_free_ const struct image_region **sorted =
		calloc(n + 1, sizeof(*sorted));

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		sorted[i] = &regions[i];
	qsort(sorted, n, sizeof(*sorted), compare_places);

	*core_end = IMAGE_PAGE_SIZE;
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(sorted[i]->pages_file, IMAGE_CORE)) {
			if (sorted[i]->pages_offset != *core_end)
				return -EBADMSG;
			*core_end += sorted[i]->length;
		} else if (i && !strcmp(sorted[i - 1]->pages_file,
					sorted[i]->pages_file)) {
			return -EBADMSG;
		}
	}
	return 0;
}

static int decode_region_list(struct record *record, struct image_region **list,
			      size_t *n)
{
	size_t size = 0;
	int r = 0;

	while (!r && !record_at_end(record)) {
		_cleanup_message_ Snapuffd__Region *message =
			NEXT(record, snapuffd__region__descriptor);

		if (!message)
			return -EBADMSG;
		if (*n == size) {
			struct image_region *grown;

			size = size ? size * 2 : 16;
			grown = reallocarray(*list, size, sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			*list = grown;
		}
		(*list)[*n] = (struct image_region){};
		r = decode_region(message, &(*list)[(*n)++]);
	}
	return r;
}

int decode_regions(struct record *regions, struct record *pagemap,
		   struct image_region **out, size_t *n_regions,
		   uint64_t *core_end)
{
	int r;

	*out = NULL;
	*n_regions = 0;

	r = decode_region_list(regions, out, n_regions);
	if (!r)
		r = check_places(*out, *n_regions, core_end);
	while (!r && !record_at_end(pagemap)) {
		_cleanup_message_ Snapuffd__Runs *message =
			NEXT(pagemap, snapuffd__runs__descriptor);

		r = message ? decode_runs(message, *out, *n_regions) : -EBADMSG;
	}
	return r;
}

static int decode_block(const Snapuffd__RamBlock *message, size_t n_regions,
			struct image_ram_block *block)
{
	if (message->has_region && message->region >= n_regions)
		return -EBADMSG;
	if (!*message->idstr || strlen(message->idstr) > 255 ||
	    message->used_length > message->max_length ||
	    message->max_length > REGION_MAX_LENGTH)
		return -EBADMSG;
	block->offset = message->offset;
	block->used_length = message->used_length;
	block->max_length = message->max_length;
	block->page_size = message->page_size;
	block->shared = message->shared;
	block->resizeable = message->resizeable;
	block->migratable = message->migratable;
	block->region = message->has_region ? (int)message->region : -1;
	return copy_string(message->idstr, &block->idstr);
}

static int decode_disk(const Snapuffd__Disk *message, struct image_disk *disk)
{
	int r;

	disk->file = string_of(message->file);
	if (!disk->file)
		return -EBADMSG;
	disk->read_only = message->read_only;
	disk->has_stat = message->has_size && message->has_mtime_ns;
	disk->size = message->size;
	disk->mtime_ns = message->mtime_ns;
	if (message->has_overlay) {
		disk->overlay = string_of(message->overlay);
		if (!disk->overlay)
			return -EBADMSG;
	}
	r = copy_string(message->device, &disk->device);
	if (!r)
		r = copy_string(message->node_name, &disk->node_name);
	return r ? r : copy_string(message->format, &disk->format);
}

static int decode_memory_device(const Snapuffd__MemoryDevice *message,
				struct image_memory_device *device)
{
	int r;

	if (!*message->memdev || message->size > REGION_MAX_LENGTH)
		return -EBADMSG;
	device->address = message->address;
	device->size = message->size;
	device->slot = message->has_slot ? message->slot : -1;
	device->node = message->node;
	r = copy_string(message->id ? message->id : "", &device->id);
	return r ? r : copy_string(message->memdev, &device->memdev);
}

int decode_machine(struct record *record, size_t n_regions,
		   struct image_machine *machine)
{
	_cleanup_message_ Snapuffd__Machine *message =
		NEXT(record, snapuffd__machine__descriptor);
	int r;

	*machine = (struct image_machine){};
	if (!message || !record_at_end(record))
		return -EBADMSG;

	machine->running = message->running;
	r = copy_string(message->qemu_version, &machine->qemu_version);
	if (!r)
		r = copy_string(message->machine_class,
				&machine->machine_class);
	if (r)
		return r;
	if (strlen(machine->machine_class) > 255)
		return -EBADMSG;
	if (message->has_cwd) {
		machine->cwd = string_of(message->cwd);
		if (!machine->cwd)
			return -EBADMSG;
	}
	if (message->has_domain_xml) {
		if (message->domain_xml.len > IMAGE_DOMAIN_XML_MAX)
			return -EBADMSG;
		machine->domain_xml = string_of(message->domain_xml);
		if (!machine->domain_xml)
			return -EBADMSG;
	}

	machine->argv = calloc(message->n_argv + 1, sizeof(*machine->argv));
	machine->blocks =
		calloc(message->n_ram_blocks + 1, sizeof(*machine->blocks));
	machine->disks = calloc(message->n_disks + 1, sizeof(*machine->disks));
	machine->memory_devices = calloc(message->n_memory_devices + 1,
					 sizeof(*machine->memory_devices));
	if (!machine->argv || !machine->blocks || !machine->disks ||
	    !machine->memory_devices)
		return -ENOMEM;

	for (size_t i = 0; i < message->n_argv; i++) {
		machine->argv[i] = string_of(message->argv[i]);
		if (!machine->argv[i])
			return -EBADMSG;
		machine->n_args++;
	}
	for (size_t i = 0; i < message->n_ram_blocks; i++) {
		machine->n_blocks++;
		r = decode_block(message->ram_blocks[i], n_regions,
				 &machine->blocks[i]);
		if (r)
			return r;
	}
	for (size_t i = 0; i < message->n_disks; i++) {
		machine->n_disks++;
		r = decode_disk(message->disks[i], &machine->disks[i]);
		if (r)
			return r;
	}
	for (size_t i = 0; i < message->n_memory_devices; i++) {
		machine->n_memory_devices++;
		r = decode_memory_device(message->memory_devices[i],
					 &machine->memory_devices[i]);
		if (r)
			return r;
	}
	return 0;
}

static int decode_histogram(const Snapuffd__Histogram *message,
			    struct histogram *h)
{
	if (!message)
		return 0;
	if (message->n_bucket != message->n_count)
		return -EBADMSG;
	h->max = message->max_ns;
	for (size_t i = 0; i < message->n_bucket; i++) {
		if (message->bucket[i] >= HISTOGRAM_BUCKETS)
			return -EBADMSG;
		h->counts[message->bucket[i]] = message->count[i];
		h->n += message->count[i];
	}
	return 0;
}

int decode_stats(struct record *record, struct image_stats *stats)
{
	_cleanup_message_ Snapuffd__Stats *message =
		NEXT(record, snapuffd__stats__descriptor);
	int r;

	*stats = (struct image_stats){};
	if (!message || !record_at_end(record))
		return -EBADMSG;

	stats->pause_ns = message->pause_ns;
	stats->captured_ns = message->captured_ns;
	stats->duration_ns = message->duration_ns;
	stats->pages_total = message->pages_total;
	stats->pages_data = message->pages_data;
	stats->pages_zero = message->pages_zero;
	stats->pages_parent = message->pages_parent;
	stats->pages_fault = message->pages_fault;
	stats->bytes_written = message->bytes_written;
	stats->peak_buffer_bytes = message->peak_buffer_bytes;
	stats->noted_pages = message->noted_pages;
	stats->rearmed_pages = message->rearmed_pages;
	r = decode_histogram(message->faults, &stats->faults);
	return r ? r : decode_histogram(message->queue, &stats->queue);
}
