/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Reads an image directory. It is untrusted input: opening checks all records
 * against their checksums and bounds; pages are checked when they are read.
 * Every error is logged with the image's path and returned as RESULT_FAILED;
 * running out of memory as -ENOMEM.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "image/codec.h"
#include "image/image.h"

struct image {
	char *path;
	int dir_fd;
	struct image_inventory inventory;
	struct image_part *parts;
	size_t n_parts;
	struct image_region *regions;
	size_t n_regions;
	struct image_machine machine; /* kind qemu */
	struct image_process process; /* kind process */
	struct image_frame_sums frame;
	struct image_stats stats;
};

int image_open(struct image **out, const char *dir);
struct image *image_close(struct image *image);

static inline void image_closep(struct image **image)
{
	*image = image_close(*image);
}

#define _cleanup_image_ _cleanup_(image_closep)

/* Opens a region's pages file for reading; returns a descriptor. Its pages are
 * at `pages_offset` and behind. */
int image_open_pages(const struct image *image,
		     const struct image_region *region);

/*
 * Reads one run's pages from an open pages file into `buf`, of at least
 * IMAGE_RUN_MAX_PAGES pages, and checks them.
 */
int image_read_run(const struct image *image, const struct image_region *region,
		   int pages_fd, const struct image_run *run, void *buf);

/* Opens memory.core, checks its length, and reads and checks what it has beside
 * pages. Returns a descriptor. */
int image_open_core(const struct image *image, struct image_frame *frame);

/* The whole device state; to be freed. */
int image_read_device_state(const struct image *image, char **data,
			    size_t *len);

/*
 * Checks everything that image_open() does not: every run of pages, that what
 * no run covers is zero, and the frame of memory.core.
 */
int image_verify(const struct image *image);
