/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Who has a file open for writing: /proc/PID/fd and fdinfo. Processes that may
 * not be looked at are passed over. No logging.
 */

#include <stddef.h>
#include <sys/types.h>

/* Files that are open in this process; which of them as an index. `proc_fd` is
 * of /proc/PID. What it returns, if not 0, ends the walk. */
typedef int (*procopen_fn)(void *opaque, size_t file, pid_t pid, int proc_fd);

/* Calls for each process but this one and each of the files that it has open
 * for writing. No other file is touched: links are compared by name first. 0,
 * -errno, or what `fn` returned. */
int procopen_walk(const int *fds, size_t n, procopen_fn fn, void *opaque);
