/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The calling thread's priority, for the short times in which the target waits
 * for it. Nothing here fails: it is only a matter of speed.
 */

/* What a thread had before. */
struct sched_before {
	int policy;
	int priority;
	int nice;
};

/* Before everything else that is not real-time; where that is not allowed, as
 * high as may be. */
struct sched_before sched_raise(void);

/* Before what is not real-time, but leaving that its turns: for work that takes
 * longer, in which the target may have to wait for this thread. */
struct sched_before sched_favour(void);

/* Back to what it was. */
void sched_restore(const struct sched_before *before);
