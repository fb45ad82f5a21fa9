/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * QMP's messages over a unix stream socket: the transport that struct qmp uses
 * unless told otherwise. Frames by balanced braces, not by lines, for a
 * monitor may be pretty-printing.
 */

#include "qemu/qmp.h"

extern const struct qmp_transport_ops qmp_sock_ops;

/* A transport for qmp_sock_ops. Takes `fd` in any case. NULL: no memory. */
void *qmp_sock_new(int fd);
