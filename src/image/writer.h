/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Writes an image directory as a transaction: everything goes to DIR.partial
 * and is renamed to DIR by image_writer_commit(); a writer freed before that
 * leaves nothing behind. So a directory named DIR is always a whole image.
 * Who first sees an error logs it, with the path.
 *
 * The calls about pages (put_pages, wait) come from one thread at a time, which
 * need not be the one that all else comes from. Regions may be added meanwhile.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/hold.h"
#include "image/image.h"

struct image_writer;

struct image_writer_options {
	bool no_uring;	/* use threads even where io_uring is allowed */
	bool no_direct; /* go through the page cache */
	uint64_t rate;	/* bytes a second; 0: as fast as it goes */
};

/*
 * Claims DIR.partial; what a killed dump left of it is removed. -EEXIST when
 * DIR exists, -EBUSY when another dump is writing to it.
 */
int image_writer_new(struct image_writer **out, const char *dir,
		     const struct image_writer_options *options);

/* Discards the image unless committed. Returns NULL. */
struct image_writer *image_writer_free(struct image_writer *writer);

static inline void image_writer_freep(struct image_writer **writer)
{
	*writer = image_writer_free(*writer);
}

#define _cleanup_image_writer_ _cleanup_(image_writer_freep)

/*
 * Makes memory.core, in which all regions will be, one behind the other, as a
 * process wants it. Before the first region; image_writer_put_process() is then
 * a must.
 */
int image_writer_use_core(struct image_writer *writer);

/*
 * Adds a region; its number is the count of those added before. Takes name,
 * address, length, page_size, backing and file of `region`, copies them, and
 * makes its pages file: sparse, as long as the region. With memory.core, that
 * needs no file and no system call, so it may be done while the target is
 * frozen.
 */
int image_writer_add_region(struct image_writer *writer,
			    const struct image_region *region);

/*
 * Stores pages [first, first + n) of a region, at most IMAGE_RUN_MAX_PAGES.
 * Pages of zeros become holes; the others are checksummed, run by run, and
 * written behind the caller's back: `data`, on a page boundary, is needed until
 * `hold`, of which references are taken, is released. Each page at most once.
 */
int image_writer_put_pages(struct image_writer *writer, unsigned region,
			   uint64_t first, uint64_t n, const void *data,
			   struct hold *hold);

/*
 * Waits until at least one write that is under way has ended: 1; 0 when none
 * was; or -errno.
 */
int image_writer_wait(struct image_writer *writer);

/* Waits until no write is under way, so that no hold is left, also after an
 * error. */
void image_writer_drain(struct image_writer *writer);

/* How pages are written, for the log: "io_uring, direct". */
const char *image_writer_method(const struct image_writer *writer);

/* Pages stored so far that held data, and bytes written to pages files. */
uint64_t image_writer_data_pages(const struct image_writer *writer);

/* Adds a file with the given content, covered by one checksum. */
int image_writer_put_file(struct image_writer *writer, const char *name,
			  const void *data, size_t len);

int image_writer_put_machine(struct image_writer *writer,
			     const struct image_machine *machine);

/*
 * The regions so far, with `pages_offset`, but without runs; an array to free,
 * of which all strings stay the writer's, until it is freed.
 */
int image_writer_list_regions(struct image_writer *writer,
			      struct image_region **regions, size_t *n);

/* Where in memory.core the last region ends, and the frame's tail begins. */
uint64_t image_writer_tail_offset(const struct image_writer *writer);

/*
 * Adds the records of a process, and to memory.core, if there is one, what it
 * has beside pages (else `frame` is NULL). No region may be added after that.
 */
int image_writer_put_process(struct image_writer *writer,
			     const struct image_process *process,
			     const struct image_frame *frame);

/* Flushes all pages to the disk, so that what remains to commit is small. */
int image_writer_sync(struct image_writer *writer);

/* Writes the records, syncs, renames. The image is complete when this is 0. */
int image_writer_commit(struct image_writer *writer,
			const struct image_inventory *inventory,
			const struct image_stats *stats);

/*
 * Instead, for a process: memory.core alone, under the name that the directory
 * was to have. All else is discarded with the writer.
 */
int image_writer_commit_core(struct image_writer *writer);

/* Or not even that: a descriptor of memory.core, to read it; it is gone with
 * the writer. Or -errno. */
int image_writer_take_core(struct image_writer *writer);
