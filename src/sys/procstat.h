/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What /proc shows of a process beside its memory: proc_pid_stat(5) and the
 * credentials of proc_pid_status(5). `proc_fd` is of /proc/PID; a thread is
 * named by its `tid`, 0 is the process as a whole. 0, -ESRCH, -EPROTO for what
 * is not understood, or -errno; no logging.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_stat {
	char name[16];
	char state;
	pid_t ppid, pgrp, sid;
	uint64_t flags; /* PF_* of the kernel */
	uint64_t utime_ns, stime_ns;
	uint64_t started_ns; /* CLOCK_BOOTTIME, rounded down to a tick */
	int nice;
};

int procstat_read(int proc_fd, pid_t tid, struct proc_stat *stat);

/* What `started_ns` is of who starts now, or later in the same tick. */
uint64_t procstat_now_ns(void);

/* Whether there is such a process, and it is no zombie. */
bool procstat_is_alive(pid_t pid);

/* Calls that write, to whatever: "syscw" of /proc/PID/io, of all its threads.
 */
int procstat_read_n_writes(int proc_fd, uint64_t *n);

/* The number of a thread in the innermost pid namespace that it is in (NSpid,
 * since 4.1). */
int procstat_read_ns_tid(int proc_fd, pid_t tid, pid_t *ns_tid);

struct proc_creds {
	uid_t uids[4]; /* real, effective, saved, file system */
	gid_t gids[4];
	gid_t *groups; /* to be freed */
	size_t n_groups;
	uint64_t cap_permitted, cap_effective;
};

int procstat_read_creds(int proc_fd, struct proc_creds *creds);
