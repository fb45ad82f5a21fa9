/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Work on an image that somebody else may have made, in a sandbox
 * (sys/sandbox.h): this process itself, for the rest of its life, or a child
 * that is gone when the work is done, where what comes after it needs more.
 */

#include <sys/types.h>

/* Enters a sandbox in which the image `dir` can be read. 0, or RESULT_FAILED,
 * logged. */
int confine_to_image(const char *dir);

/* As its child, which ends with it. */
struct confined {
	pid_t pid;
	const char *image;
};

/*
 * Starts a child that may read the image `dir` and, unless NULL, write files
 * in `write_dir`, and has it call `work`, which returns 0, RESULT_* or -errno,
 * and may log. It has what is open here, and a copy of the memory. The process
 * must have one thread. 0 or -errno, logged.
 *
 * Nothing is cleaned up in the child behind `work`: no file is removed there.
 */
int confined_start(struct confined *child, const char *dir,
		   const char *write_dir, int (*work)(void *), void *data);

/* Waits for it, and passes an interrupt on to it. What `work` returned, but
 * RESULT_FAILED for a -errno that it has logged; the same, logged, when it
 * died. */
int confined_wait(struct confined *child);

/* Both. */
int confined_run(const char *dir, const char *write_dir, int (*work)(void *),
		 void *data);
