/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Writes an image directory as a transaction: everything goes to DIR.partial
 * and is renamed to DIR by image_writer_commit(); a writer freed before that
 * leaves nothing behind. So a directory named DIR is always a whole image.
 * Who first sees an error logs it, with the path.
 *
 * image_writer_put_pages() may be called by several threads at once, for
 * different pages; all else from one thread.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "image/image.h"

struct image_writer;

/*
 * Claims DIR.partial; what a killed dump left of it is removed. -EEXIST when
 * DIR exists, -EBUSY when another dump is writing to it.
 */
int image_writer_new(struct image_writer **out, const char *dir);

/* Discards the image unless committed. Returns NULL. */
struct image_writer *image_writer_free(struct image_writer *writer);

static inline void image_writer_freep(struct image_writer **writer)
{
	*writer = image_writer_free(*writer);
}

#define _cleanup_image_writer_ _cleanup_(image_writer_freep)

/*
 * Adds a region; its number is the count of those added before. Takes name,
 * address, length, page_size, backing and file of `region`, copies them, and
 * makes its pages file: sparse, as long as the region.
 */
int image_writer_add_region(struct image_writer *writer,
			    const struct image_region *region);

/*
 * Stores pages [first, first + n) of a region, at most IMAGE_RUN_MAX_PAGES.
 * Pages of zeros become holes; the others are checksummed, run by run, and
 * written. Each page at most once.
 */
int image_writer_put_pages(struct image_writer *writer, unsigned region,
			   uint64_t first, uint64_t n, const void *data);

/* Pages stored so far that held data, and bytes written to pages files. */
uint64_t image_writer_data_pages(const struct image_writer *writer);

/* Adds a file with the given content, covered by one checksum. */
int image_writer_put_file(struct image_writer *writer, const char *name,
			  const void *data, size_t len);

int image_writer_put_machine(struct image_writer *writer,
			     const struct image_machine *machine);

/* Flushes all pages to the disk, so that what remains to commit is small. */
int image_writer_sync(struct image_writer *writer);

/* Writes the records, syncs, renames. The image is complete when this is 0. */
int image_writer_commit(struct image_writer *writer,
			const struct image_inventory *inventory,
			const struct image_stats *stats);
