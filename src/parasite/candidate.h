/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What of a target is found out before it is touched: which thread is to be
 * held, and what of its memory that needs.
 *
 * It is the main thread, always, as long as there is one: only of this is it
 * known which stack it owns, the kernel-made [stack]. Where it has exited
 * (pthread_exit(3) in main), another one serves.
 *
 * Refusals and failures are logged.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "parasite/arch-x86_64.h"
#include "sys/procfs.h"

struct candidate {
	pid_t pid;
	pid_t tid;		   /* to be held; `pid` while that lives */
	struct proc_status status; /* of this thread */
	struct range stack;	   /* [stack], the main thread's */
	struct arch_gadgets gadgets;
};

/* 0, -ESRCH, -errno, or RESULT_UNSUPPORTED for what must be left alone. */
int candidate_find(struct candidate *candidate, pid_t pid, int proc_fd);

/* The thread was seized: that it is one of this process, and that nobody else
 * holds another one. 0, -ESRCH, -errno, or RESULT_UNSUPPORTED. */
int candidate_check_held(const struct candidate *candidate, int proc_fd);

/* While it is held: whether what was found of its memory is still true, and if
 * not, finds it anew, for it may have executed another program since. */
int candidate_refresh(struct candidate *candidate, int proc_fd);

/* [stack] as it is now, for it grows. -ENOENT when there is none; not logged.
 */
int candidate_read_stack(const struct candidate *candidate, int proc_fd,
			 struct range *stack);

/* Whether the process has a live thread of this id. */
bool candidate_has_thread(int proc_fd, pid_t tid);
