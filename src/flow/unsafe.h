/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Reasons for which a snapshot may be torn: something writes to the memory, and
 * nobody can be told of it. They are refused, or accepted and written down.
 */

#include <sys/types.h>

#include "qemu/vm.h"

/* Says all of them, and the way out, in one error line. RESULT_UNSUPPORTED, or
 * 0 when there are none. */
int unsafe_refuse(pid_t pid, const struct vm_strings *reasons,
		  const char *way_out);

/* Warns of each, and adds it to `unsafe`. 0 or -ENOMEM. */
int unsafe_accept(pid_t pid, const struct vm_strings *reasons,
		  struct vm_strings *unsafe);
