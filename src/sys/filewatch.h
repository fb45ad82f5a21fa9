/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * inotify(7): which of some files are written to, by write(2) and its like;
 * what a process writes to a mapping is not told. Nor is anything of a memfd,
 * since 6.14, but for what is written through a descriptor that was opened anew
 * by /proc/PID/fd. 0 or -errno, no logging.
 */

#include <stdbool.h>
#include <stddef.h>

/* A descriptor, to be closed, or -errno. */
int filewatch_open(void);

/* `fd` is open in this process. Returns the number of the file, or -errno. */
int filewatch_add(int watch_fd, int fd);

/* Takes the next that was written to: its number, FILEWATCH_SOME when it is not
 * known any more which, -EAGAIN when there is none, or -errno. */
int filewatch_next(int watch_fd);

#define FILEWATCH_SOME 0 /* numbers begin at 1 */

/* Whether `fd` is a memfd of which nothing would be told. */
bool filewatch_is_blind(int fd);
