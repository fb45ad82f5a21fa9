/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <sys/types.h>

/*
 * Whether two processes share one address space, by kcmp(2). 1, 0; -ESRCH when
 * one is gone; -ENOSYS from a kernel without CONFIG_KCMP; -EPERM without the
 * right to trace both; -errno. Logs nothing.
 */
int kcmp_same_memory(pid_t a, pid_t b);

/* The same of a descriptor of each: whether it is one open file description.
 * -EBADF: there is none. */
int kcmp_same_file(pid_t a, int fd_a, pid_t b, int fd_b);
