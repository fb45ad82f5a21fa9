/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Messages with descriptors over a unix socket (SCM_RIGHTS, unix(7)). Logs
 * nothing. On a datagram or seqpacket socket one send is one receive.
 */

#include <stddef.h>

#define FDPASS_MAX 16

/*
 * Sends `len` (at least 1) bytes and `n_fds` (at most FDPASS_MAX) descriptors
 * of which the caller keeps its own. Never waits: -EAGAIN when the socket is
 * full. 0, -EINVAL, -EPIPE (without a SIGPIPE), -EIO for a short send, -errno.
 */
int fdpass_send(int sock, const void *data, size_t len, const int *fds,
		size_t n_fds);

/*
 * Receives one message. `len` is the room in and the bytes received out, 0 at
 * end of file; `n_fds` the same for the descriptors, which are close-on-exec
 * and the caller's. A message that has more of either than there is room for
 * is -EMSGSIZE and its descriptors are closed. `fds` may be NULL when there is
 * room for none. Never interrupted.
 */
int fdpass_recv(int sock, void *data, size_t *len, int *fds, size_t *n_fds);
