/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/page_stream.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bitmap.h"
#include "base/page.h"
#include "base/util.h"

struct sent_region {
	size_t block;	    /* of ram->blocks */
	struct bitmap sent; /* pages; no bits where zeros need not be said */
};

struct page_stream {
	struct stream *stream;
	struct sent_region *regions;
	size_t n_regions;
	uint64_t n_data;
};

static int add_regions(struct page_stream *to, const struct ram *ram)
{
	int r = 0;

	to->regions = calloc(ram->n_regions + 1, sizeof(*to->regions));
	if (!to->regions)
		return -ENOMEM;
	for (size_t i = 0; !r && i < ram->n_regions; i++) {
		struct sent_region *region = &to->regions[to->n_regions++];
		const struct ram_block *block;

		region->block = ram->regions[i].block;
		block = &ram->blocks.blocks[region->block];
		if (block->used_length <= RAM_BLOCK_FROM_FILE_MAX)
			r = bitmap_init(&region->sent,
					block->used_length / PAGE_SIZE);
	}
	return r;
}

int page_stream_new(struct page_stream **out, const struct savevm_sink *sink,
		    const char *machine, const struct ram *ram)
{
	_cleanup_page_stream_ struct page_stream *to = calloc(1, sizeof(*to));
	int r;

	if (!to)
		return -ENOMEM;
	r = add_regions(to, ram);
	if (!r)
		r = stream_begin(sink, machine, &ram->blocks, &to->stream);
	if (r)
		return r;
	*out = steal_ptr(to);
	return 0;
}

int page_stream_put(struct page_stream *to, unsigned number, uint64_t first,
		    uint64_t n, const void *pages)
{
	struct sent_region *region = &to->regions[number];
	uint64_t at = page_find_data(pages, 0, n), end;
	int r;

	for (; at < n; at = page_find_data(pages, end, n)) {
		end = page_find_zero(pages, at, n);
		r = stream_pages(
			to->stream, region->block, (first + at) * PAGE_SIZE,
			(const uint8_t *)pages + at * PAGE_SIZE, end - at);
		if (r)
			return r;
		to->n_data += end - at;
		if (region->sent.n_bits)
			bitmap_set_range(&region->sent, first + at,
					 first + end);
	}
	return 0;
}

static int say_zeros(struct page_stream *to, const struct sent_region *region)
{
	uint64_t n = region->sent.n_bits, first = 0, end;
	int r = 0;

	while (!r && (first = bitmap_find_clear(&region->sent, first, n)) < n) {
		end = bitmap_find_set(&region->sent, first, n);
		r = stream_zero_pages(to->stream, region->block,
				      first * PAGE_SIZE, end - first);
		first = end;
	}
	return r;
}

int page_stream_end(struct page_stream *to, const void *devstate, size_t len)
{
	int r = 0;

	for (size_t i = 0; !r && i < to->n_regions; i++)
		r = say_zeros(to, &to->regions[i]);
	return r ? r : stream_end(to->stream, devstate, len);
}

uint64_t page_stream_data_pages(const struct page_stream *to)
{
	return to->n_data;
}

uint64_t page_stream_bytes(const struct page_stream *to)
{
	return stream_bytes(to->stream);
}

struct page_stream *page_stream_free(struct page_stream *to)
{
	if (!to)
		return NULL;
	stream_free(to->stream);
	for (size_t i = 0; i < to->n_regions; i++)
		bitmap_deinit(&to->regions[i].sent);
	free(to->regions);
	free(to);
	return NULL;
}
