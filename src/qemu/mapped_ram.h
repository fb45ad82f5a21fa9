/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Lays out QEMU's mapped-ram file, which 9.0 and later load with capability
 * mapped-ram and `migrate-incoming file:F`: within the frame of qemu/savevm.h
 * each entry of the block list is followed by a header, a bitmap of the pages
 * that are present, and room for all of the block's pages, page-addressed and
 * aligned to 1 MiB for direct I/O. Format: mapped_ram_setup_ramblock() in
 * QEMU's migration/ram.c, docs/devel/migration/mapped-ram.
 *
 *   begin -> pages, in any order and of any block -> end
 *
 * Page data is not passed through here: mapped_ram_pages() says where it
 * belongs, and the caller brings it there. The file must be new, for what
 * nobody writes has to read as zeros; it ends behind all pages' room, as QEMU
 * demands. One thread at a time.
 *
 * Pages that are not present keep what the destination has: zeros in fresh
 * RAM, but a ROM's file in ROM blocks.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "qemu/savevm.h"

struct mapped_ram;

/*
 * Writes everything that precedes the devices but the bitmaps. `sink` has to
 * write at the place that it is told. `machine` and `blocks` as for
 * savevm_begin(). 0, -EINVAL or -EFBIG when no file can hold the blocks,
 * -ENOMEM, or the sink's error; logged.
 */
int mapped_ram_begin(const struct savevm_sink *sink, const char *machine,
		     const struct ram_blocks *blocks, struct mapped_ram **out);

/*
 * Says that `n_pages` pages are present, the first one being at `offset` bytes
 * in block number `block` (of `blocks`; a migratable one), and at byte `*at`
 * of the file; the others follow. Those that are zero need not be written.
 * -ERANGE, logged, when they are not within the block's used length.
 */
int mapped_ram_pages(struct mapped_ram *ram, size_t block, uint64_t offset,
		     size_t n_pages, uint64_t *at);

/* Writes bitmaps and devices, as savevm_end(). No more calls but
 * mapped_ram_free(). */
int mapped_ram_end(struct mapped_ram *ram, const void *devstate,
		   size_t devstate_len);

/* Frees it, also half-way; then what was written is no whole file. */
struct mapped_ram *mapped_ram_free(struct mapped_ram *ram);

static inline void mapped_ram_freep(struct mapped_ram **ram)
{
	*ram = mapped_ram_free(*ram);
}

#define _cleanup_mapped_ram_ _cleanup_(mapped_ram_freep)
