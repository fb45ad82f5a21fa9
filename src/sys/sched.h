/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The calling thread's priority, for the short times in which the target waits
 * for it.
 */

/* Before everything else that is not real-time; where that is not allowed, as
 * high as may be. Does not fail: it is only a matter of speed. */
void sched_raise(void);

/* Before what is not real-time, but leaving that its turns: for work that takes
 * longer, in which the target may have to wait for this thread. */
void sched_favour(void);

/* Back to normal. */
void sched_lower(void);
