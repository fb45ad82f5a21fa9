/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/destination.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "base/interrupt.h"
#include "base/util.h"
#include "config.h"
#include "snapuffd/image-format.h"

struct to_image {
	struct destination base;
	const char *dir;
	struct image_writer_options options;
	struct image_writer *writer;
};

static int add_regions(struct image_writer *writer, const struct ram *ram)
{
	int r = 0;

	for (size_t i = 0; !r && i < ram->n_regions; i++) {
		const struct ram_region *region = &ram->regions[i];
		const struct ram_block *block =
			&ram->blocks.blocks[region->block];
		struct image_region desc = {
			.name = block->name,
			.address = region->desc.range.start,
			.length = range_len(region->desc.range),
			.page_size = (uint32_t)block->page_size,
			.backing = region->backing,
			.file = region->file,
		};

		r = image_writer_add_region(writer, &desc);
	}
	return r;
}

static int begin(struct destination *base, const struct snapshot *snapshot)
{
	struct to_image *to = (struct to_image *)base;
	int r = image_writer_new(&to->writer, to->dir, &to->options);

	return r ? r : add_regions(to->writer, snapshot->ram);
}

static int put_pages(void *opaque, unsigned region, uint64_t first_page,
		     uint64_t n_pages, const void *data, struct hold *hold)
{
	struct to_image *to = opaque;

	return image_writer_put_pages(to->writer, region, first_page, n_pages,
				      data, hold);
}

static int wait_for_pages(void *opaque)
{
	struct to_image *to = opaque;

	return image_writer_wait(to->writer);
}

static void drain_pages(void *opaque)
{
	struct to_image *to = opaque;

	image_writer_drain(to->writer);
}

static int commit(struct to_image *to, const struct snapshot *snapshot,
		  const struct image_stats *stats)
{
	struct utsname host = {};
	struct image_inventory inventory = {
		.version = IMAGE_VERSION,
		.kind = IMAGE_KIND_QEMU,
		.complete = true,
		.tool_version = SNAPUFFD_VERSION,
		.host = host.nodename,
		.kernel = host.release,
		.pid = snapshot->target->pid,
		.started_unix_ns = snapshot->started_unix_ns,
		.frozen_unix_ns = snapshot->frozen_unix_ns,
		.unsafe = snapshot->unsafe->items,
		.n_unsafe = snapshot->unsafe->n_items,
	};

	uname(&host);
	return image_writer_commit(to->writer, &inventory, stats);
}

static int finish(struct destination *base, const struct snapshot *snapshot,
		  struct image_stats *stats)
{
	struct to_image *to = (struct to_image *)base;
	struct image_writer *writer = to->writer;
	int r;

	r = image_writer_put_machine(writer, snapshot->machine);
	if (!r)
		r = image_writer_put_file(writer, IMAGE_DEVICE_STATE,
					  snapshot->devices->data,
					  snapshot->devices->len);
	/* The pages are most of the work; the image records its duration. */
	if (!r)
		r = image_writer_sync(writer);
	if (r)
		return r;
	if (interrupt_pending())
		return -EINTR;
	stats->pages_data = image_writer_data_pages(writer);
	stats->bytes_written = stats->pages_data * PAGE_SIZE;
	stats->duration_ns = now_ns() - snapshot->started_ns;
	stats->pages_zero = stats->pages_total - stats->pages_data;
	return commit(to, snapshot, stats);
}

static void free_image(struct destination *base)
{
	struct to_image *to = (struct to_image *)base;

	image_writer_free(to->writer);
	free(to);
}

struct destination *destination_new_image(
	const char *dir, const struct image_writer_options *options)
{
	struct to_image *to = calloc(1, sizeof(*to));

	if (!to)
		return NULL;
	to->base = (struct destination){
		.begin = begin,
		.finish = finish,
		.free = free_image,
		.sink = { .put = put_pages,
			  .wait = wait_for_pages,
			  .drain = drain_pages,
			  .opaque = to },
	};
	to->dir = dir;
	to->options = *options;
	return &to->base;
}
