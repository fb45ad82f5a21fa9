/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What a QEMU uses a listening socket for, as far as its argv tells. Option
 * syntax: qemu(1); util/qemu-option.c (",," is a comma in a value),
 * chardev/char.c (what -qmp takes).
 */

#include <stddef.h>

enum socket_use {
	SOCKET_USE_UNKNOWN, /* argv does not name it */
	SOCKET_USE_QMP,
	SOCKET_USE_OTHER, /* serial port, human monitor, display, … */
};

/*
 * The socket is named `name`, a path or an abstract name without its first NUL
 * ("" when it has none), and is at the `n_fds` descriptors `fds` of the
 * target. `argv` ends with NULL.
 */
enum socket_use socket_use_from_argv(char *const *argv, const char *name,
				     const int *fds, size_t n_fds);
