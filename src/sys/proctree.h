/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The descendants of a process, by /proc/PID/task/TID/children (since 3.5,
 * CONFIG_PROC_CHILDREN).
 */

#include <stddef.h>
#include <sys/types.h>

/*
 * `pid` itself first, then its living descendants, each behind its parent; an
 * array to free. What starts or ends meanwhile may be missing or too many. 0,
 * -ESRCH when `pid` is gone, or -errno; no logging.
 */
int proctree_list(pid_t pid, pid_t **pids, size_t *n);
