/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Writes QEMU's classic migration stream, which every QEMU loads with
 * `-incoming`: within the frame of qemu/savevm.h one "ram" section with all
 * pages, each in a record. Format: migration/ram.c, docs/devel/migration in
 * QEMU's tree.
 *
 *   begin -> pages, zero_pages, in any order and of any block -> end
 *
 * Pages that are never sent keep what the destination has: zeros in fresh
 * RAM, but a ROM's file in ROM blocks. One thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "qemu/savevm.h"

struct stream;

/*
 * Starts a stream: everything up to the first page. `sink` is given the bytes
 * in order, so it may be a pipe. `machine` is the machine class
 * ("pc-i440fx-7.2"). All blocks that are migratable are listed, with their
 * `used_length`; `blocks` must live as long as the stream.
 */
int stream_begin(const struct savevm_sink *sink, const char *machine,
		 const struct ram_blocks *blocks, struct stream **out);

/*
 * Sends `n_pages` pages of PAGE_SIZE bytes at `data`, the first one being at
 * `offset` bytes in block number `block` (of `blocks`; a migratable one).
 * -ERANGE, logged, when that is not within its used length. A page that was
 * sent before is overwritten. Cheapest when calls stay in one block.
 */
int stream_pages(struct stream *stream, size_t block, uint64_t offset,
		 const void *data, size_t n_pages);

/* Says that these pages are zero. Needed only where the destination's may
 * not be: blocks that it fills from a ROM file. */
int stream_zero_pages(struct stream *stream, size_t block, uint64_t offset,
		      size_t n_pages);

/*
 * Ends RAM and adds the devices: `devstate` is the whole file that
 * xen-save-devices-state wrote. Flushes. No more calls but stream_free().
 */
int stream_end(struct stream *stream, const void *devstate,
	       size_t devstate_len);

/* Bytes given to the sink so far or still buffered. */
uint64_t stream_bytes(const struct stream *stream);

/* Frees it, also half-way; then what was written is no whole stream. */
struct stream *stream_free(struct stream *stream);

static inline void stream_freep(struct stream **stream)
{
	*stream = stream_free(*stream);
}

#define _cleanup_stream_ _cleanup_(stream_freep)
