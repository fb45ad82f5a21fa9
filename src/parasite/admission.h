/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Whether a target lets a parasite do what it is for, seen from outside, before
 * anything is touched: the kernel is asked for what it would refuse later, and
 * the target's limits are read.
 */

#include "target/target.h"

/*
 * *obstacle is NULL, or a sentence about the target, to be freed: a seccomp
 * filter that cannot be suspended, no way to a userfaultfd, no descriptor free.
 * 0, or -errno, logged. Forks a child, for a moment, where there is a filter.
 */
int admission_find_obstacle(const struct target *target, char **obstacle);
