/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A file that a snapshot, or what is made of one, is written to; or standard
 * output. A file is new, private, and removed again unless it was finished.
 *
 * Whoever reads a pipe or socket may take all the time it wants:
 * output_append() waits for it, but for no longer than until
 * interrupt_pending() or output_cancel(). Nothing but output_cancel() may be
 * called by another thread meanwhile. Errors are logged with the path, those
 * two excepted.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "flow/imagewalk.h"

struct output {
	const char *path; /* not owned */
	int fd;
	bool remove;
	bool no_sharing; /* with the image: it was tried */
	bool may_stall;	 /* whoever reads it decides when it takes more */
	bool in_pieces;	 /* the kernel cannot be asked for what fits */
	_Atomic bool cancelled;
};

#define OUTPUT_INIT ((struct output){ .fd = -1 })

/* `path` must not exist; "-" is stdout. 0 or -errno. */
int output_open(struct output *output, const char *path);

/* Once all is written: 0, and it stays, or -errno. */
int output_finish(struct output *output);
void output_discard(struct output *output);

#define _cleanup_output_ _cleanup_(output_discard)

/* Both are a savevm_sink's `write`, with a struct output; 0 or -errno; -EINTR
 * or -ECANCELED. The first goes on where the last call ended and looks not at
 * `at`. */
int output_append(void *output, uint64_t at, const void *buf, size_t len);
int output_write_at(void *output, uint64_t at, const void *buf, size_t len);

/* From now on output_append() waits for nobody. From any thread. */
void output_cancel(struct output *output);

/*
 * Pages of an image (not zeros), at byte `at`, a multiple of PAGE_SIZE: shared
 * with the image where the file system can, else written. 0 or -errno.
 */
int output_put_pages(struct output *output, uint64_t at,
		     const struct imagewalk_pages *pages);
