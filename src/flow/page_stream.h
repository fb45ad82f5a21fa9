/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Captured pages, in whatever order they come, as a migration stream. Zeros
 * need not be sent, for a fresh QEMU's RAM is zero; but of blocks that it fills
 * from files every page is said. So of these, which are small, it is kept which
 * pages were sent, and the others are named as zero in the end.
 *
 * new, put…, end. One thread at a time.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "flow/ram.h"
#include "qemu/stream.h"

struct page_stream;

/* `machine` is the machine class; `ram` must live as long. 0 or -errno. */
int page_stream_new(struct page_stream **out, const struct savevm_sink *sink,
		    const char *machine, const struct ram *ram);

/*
 * Sends pages [first, first + n) of a region of `ram` that are at `pages`, on a
 * page boundary, unless they are zero. Each page at most once. 0 or what the
 * sink returned.
 */
int page_stream_put(struct page_stream *to, unsigned region, uint64_t first,
		    uint64_t n, const void *pages);

/* All was put that is not zero: ends the stream, with the file that
 * xen-save-devices-state wrote. */
int page_stream_end(struct page_stream *to, const void *devstate, size_t len);

/* Pages sent that are not zero, and the bytes of the stream, so far. */
uint64_t page_stream_data_pages(const struct page_stream *to);
uint64_t page_stream_bytes(const struct page_stream *to);

struct page_stream *page_stream_free(struct page_stream *to);

static inline void page_stream_freep(struct page_stream **to)
{
	*to = page_stream_free(*to);
}

#define _cleanup_page_stream_ _cleanup_(page_stream_freep)
