/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* A thread's signals as /proc/PID/task/TID/status shows them; bit n - 1 is
 * signal n. */
struct procsig {
	uint64_t pending; /* for the thread or for its process */
	uint64_t blocked; /* in ppoll(2) and its like: while that lasts */
	uint64_t ignored;
	uint64_t caught; /* there is a handler */
};

/* `proc_fd` is of /proc/PID. 0, -ESRCH, or -errno. */
int procsig_read(int proc_fd, pid_t tid, struct procsig *sig);
