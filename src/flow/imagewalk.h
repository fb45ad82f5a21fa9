/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * An image's pages, in order and checked, for whoever makes something else of
 * them. Ctrl-C ends a walk with -EINTR.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/reader.h"
#include "qemu/ramblock.h"

/* Pages [first, first + n) of a region. */
struct imagewalk_pages {
	size_t block; /* whose RAM it is; 0 where no blocks are walked */
	uint64_t first;
	uint64_t n;
	const void *data;   /* NULL: they are zero */
	int fd;		    /* the pages file */
	uint64_t fd_offset; /* where it has them, bytes */
};

/* What is done with the pages; each returns 0, or an error that ends the
 * walk. */
struct imagewalk {
	int (*data)(void *opaque, const struct imagewalk_pages *pages);
	/* May be NULL. */
	int (*zeros)(void *opaque, const struct imagewalk_pages *pages);
	void *opaque;
	bool without_ram; /* only blocks that are not imagewalk_is_ram() */
};

/* All pages of one region: 0, RESULT_FAILED, -errno, or the handler's error;
 * logged. */
int imagewalk_region(const struct image *image,
		     const struct image_region *region,
		     const struct imagewalk *walk);

/*
 * All RAM blocks, as a QEMU that loads them needs them told: zeros are left
 * out of guest RAM, which starts as zeros, but not of what a fresh QEMU fills
 * from files (option ROMs, firmware, tables).
 */
int imagewalk_blocks(const struct image *image, const struct imagewalk *walk);

/* Whether a block is guest RAM, and not one of the small ones that QEMU fills
 * from files: what a restored QEMU may map. */
bool imagewalk_is_ram(const struct image_ram_block *block);

/* The image's RAM blocks as the writers of QEMU's formats want them, in the
 * same order; 0 or -ENOMEM. */
int imagewalk_list_blocks(const struct image *image, struct ram_blocks *blocks);
