/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Finds the QMP monitor of a QEMU process that is not ours: its listening unix
 * sockets (sock_diag, matched by inode with /proc/PID/fd), best candidate
 * first by what its argv says, accepted when it greets as QMP. A socket that
 * argv names for another purpose (serial port, human monitor, …) is never
 * connected to: that would disturb it.
 */

#include <sys/types.h>

#include "qemu/qmp.h"

/*
 * Connects to the monitor of the process `pid`, whose /proc directory is
 * `proc_fd`. `qmp_path` (as the target sees it; '@' first means an abstract
 * name) names the socket; NULL searches.
 *
 * Returns 0 and a negotiated connection; RESULT_UNSUPPORTED after one error
 * line: there is none, it does not speak QMP, it belongs to another process,
 * or a client holds it (the line names that client and the remedy; of libvirt,
 * the domain); -errno, logged.
 */
int find_qmp(pid_t pid, int proc_fd, const char *qmp_path, struct qmp **out);

/* The same search, without a word about a failure. */
int find_qmp_silently(pid_t pid, int proc_fd, struct qmp **out);
