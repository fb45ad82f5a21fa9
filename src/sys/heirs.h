/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Processes that have a copy of a descriptor of ours since they were forked
 * while it was open in their parent too: a target, which makes a userfaultfd
 * for us. Closing ours does not end such a one. No logging.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A time: who was started before it is not looked at. */
struct heirs_mark {
	uint64_t started_ns; /* procstat_now_ns() */
	long last_pid;	     /* that was given away; -1: the kernel won't say */
};

struct heirs_mark heirs_mark(void);

/*
 * Looks for a process, started since the mark, that has one of these
 * userfaultfds and does not run this program (our own helpers do). Who is in
 * the middle of a fork(2) is not seen: stop the parent first to be sure. One
 * that may not be looked at counts as having none. Reads /proc/loadavg only,
 * where nobody was started. 1, its number in `*heir`; 0; or -errno.
 */
int heirs_find(const int *uffds, size_t n, const struct heirs_mark *mark,
	       pid_t *heir);
