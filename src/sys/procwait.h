/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* What a thread waits for, for people. */

#include <stddef.h>
#include <sys/types.h>

/*
 * "state D, in wait_for_vfork_done": the letter of proc_pid_stat(5), and the
 * kernel function that it sleeps in (proc_pid_wchan(5)) where it does and we
 * may trace it. "gone" when it is. `proc_fd` is of /proc/PID.
 */
void procwait_describe(int proc_fd, pid_t tid, char *text, size_t size);
