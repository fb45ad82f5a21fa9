/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Whether the threads of a target can be stopped, seen from outside. One that
 * somebody else traces cannot; one in uninterruptible sleep not before that
 * ends. To be asked before they are seized: a thread that was, and that did not
 * stop, may be woken by that when it comes back from its sleep.
 */

#include <stdbool.h>

#include "target/target.h"

/*
 * *obstacle is NULL, or a sentence about the target, to be freed. Of `all`
 * threads, or of the main one alone, one that sleeps uninterruptibly is waited
 * for, up to 2 s; a tracer of any thread is an obstacle. 0, -ESRCH, -EINTR or
 * -errno, which is logged but for -EINTR.
 */
int threads_find_obstacle(const struct target *target, bool all,
			  char **obstacle);
