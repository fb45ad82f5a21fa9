/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/imagewalk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/result.h"
#include "base/util.h"
#include "snapuffd/image-format.h"

#define BUF_LEN ((size_t)IMAGE_RUN_MAX_PAGES * IMAGE_PAGE_SIZE)

bool imagewalk_is_ram(const struct image_ram_block *block)
{
	return block->region >= 0 &&
	       block->used_length > RAM_BLOCK_FROM_FILE_MAX;
}

static int walk_zeros(const struct imagewalk *walk, size_t block,
		      uint64_t first, uint64_t end)
{
	struct imagewalk_pages pages = {
		.block = block,
		.first = first,
		.n = end - first,
		.fd = -1,
	};

	if (first == end || !walk->zeros)
		return 0;
	return walk->zeros(walk->opaque, &pages);
}

static int walk_run(const struct image *image,
		    const struct image_region *region, size_t block, int fd,
		    const struct image_run *run, void *buf,
		    const struct imagewalk *walk)
{
	struct imagewalk_pages pages = {
		.block = block,
		.first = run->first,
		.n = run->n,
		.data = buf,
		.fd = fd,
		.fd_offset = region->pages_offset + run->first * PAGE_SIZE,
	};
	int r = image_read_run(image, region, fd, run, buf);

	return r ? r : walk->data(walk->opaque, &pages);
}

static int walk_region(const struct image *image,
		       const struct image_region *region, size_t block,
		       const struct imagewalk *walk)
{
	_cleanup_free_ void *buf = malloc(BUF_LEN);
	_cleanup_close_ int fd = image_open_pages(image, region);
	uint64_t next = 0;
	int r = 0;

	if (!buf)
		return -ENOMEM;
	if (fd < 0)
		return RESULT_FAILED;
	for (size_t i = 0; !r && i < region->n_runs; i++) {
		const struct image_run *run = &region->runs[i];

		if (interrupt_pending())
			return -EINTR;
		r = walk_zeros(walk, block, next, run->first);
		if (!r)
			r = walk_run(image, region, block, fd, run, buf, walk);
		next = run->first + run->n;
	}
	return r ? r
		 : walk_zeros(walk, block, next, region->length / PAGE_SIZE);
}

int imagewalk_region(const struct image *image,
		     const struct image_region *region,
		     const struct imagewalk *walk)
{
	return walk_region(image, region, 0, walk);
}

int imagewalk_blocks(const struct image *image, const struct imagewalk *walk)
{
	const struct image_machine *machine = &image->machine;
	int r = 0;

	for (size_t i = 0; !r && i < machine->n_blocks; i++) {
		const struct image_ram_block *block = &machine->blocks[i];
		struct imagewalk told = *walk;

		if (imagewalk_is_ram(block))
			told.zeros = NULL;
		if (block->region >= 0 &&
		    !(walk->without_ram && imagewalk_is_ram(block)))
			r = walk_region(image, &image->regions[block->region],
					i, &told);
	}
	return r;
}

int imagewalk_list_blocks(const struct image *image, struct ram_blocks *blocks)
{
	const struct image_machine *machine = &image->machine;

	blocks->blocks = calloc(machine->n_blocks + 1, sizeof(*blocks->blocks));
	if (!blocks->blocks)
		return -ENOMEM;
	for (size_t i = 0; i < machine->n_blocks; i++) {
		const struct image_ram_block *block = &machine->blocks[i];

		blocks->blocks[blocks->n_blocks++] = (struct ram_block){
			.name = strdup(block->idstr),
			.page_size = block->page_size,
			.offset = block->offset,
			.used_length = block->used_length,
			.max_length = block->max_length,
			.shared = block->shared,
			.resizeable = block->resizeable,
			.migratable = block->migratable,
		};
		if (!blocks->blocks[i].name)
			return -ENOMEM;
	}
	return 0;
}
