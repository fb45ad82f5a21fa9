/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Process descriptors (pidfd_open(2)): a process by identity, which a recycled
 * pid is not. Logs nothing. The names differ from the C library's, whose
 * functions of the kernel's names would be overridden for every library.
 *
 * Never include <sys/pidfd.h>: with src/ in the include path it is this file.
 */

#include <stdbool.h>
#include <sys/types.h>

/* A close-on-exec descriptor of the process, -ESRCH, or -errno. */
int pidfd_from_pid(pid_t pid);

/* The same for a thread that is not its process's main thread (since 6.9);
 * -EINVAL when the kernel knows no such descriptors. */
int pidfd_from_tid(pid_t tid);

/*
 * A close-on-exec duplicate of descriptor `remote_fd` of the process, which
 * needs the right to trace it (since 5.6); -EBADF when it has no such
 * descriptor, or -errno.
 */
int pidfd_take_fd(int pidfd, int remote_fd);

/* False once it has exited, also while it is a zombie. */
bool pidfd_is_alive(int pidfd);

/* Waits until it exits: 0, -ETIMEDOUT after `timeout_ms` (-1: never), -errno.
 */
int pidfd_wait_exit(int pidfd, int timeout_ms);

/* Sends a signal: 0, -ESRCH, or -errno. */
int pidfd_kill(int pidfd, int sig);
