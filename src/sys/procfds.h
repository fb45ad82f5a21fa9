/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* How many descriptors a process could still open. No logging. */

#include <stdint.h>

/*
 * Counts the numbers below its soft RLIMIT_NOFILE that are free; of many only
 * as far as `enough`. `proc_fd` is of /proc/PID. 0, -ESRCH, -EPROTO or -errno.
 */
int procfds_count_free(int proc_fd, uint64_t enough, uint64_t *n_free);
