/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdbool.h>

#include "sys/ptrace.h"

/*
 * Some calls that wait end with EINTR when their thread is merely stopped
 * (signal(7), "Interruption of system calls by stop signals"). Turns that into
 * the kernel's code for "restart, unless a handler runs first", which the
 * kernel obeys when the thread goes on from get_signal(). Only calls that may
 * be made again: they did nothing yet. One with a time limit gets its whole
 * time again. Returns whether it changed `regs`.
 */
bool restart_eintr(struct user_regs_struct *regs);

/* The same for a thread that stands. 0 or -errno. */
int restart_mend(pid_t tid);

/*
 * From the stop for a signal: hands it on, and asks for another stop, since
 * with this one the kernel may have forgotten that. A traced thread is woken by
 * ignored signals, too, and does not see it. 0 or -errno.
 */
int restart_pass_on(pid_t tid, int sig);
