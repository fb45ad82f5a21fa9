/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Other processes that have a guest's RAM mapped for writing: whatever they
 * are (a vhost-user backend, an ivshmem peer, a debugger), what they write
 * raises no fault in the target.
 */

#include <sys/types.h>

#include "qemu/ramblock.h"
#include "qemu/vm.h"
#include "sys/procfs.h"

/*
 * Appends one line for each such process. `maps` is the target's; `blocks`
 * must have their host addresses. Processes that may not be inspected are
 * passed over. 0 or -errno, logged.
 */
int sharers_list(pid_t pid, const struct proc_maps *maps,
		 const struct ram_blocks *blocks, struct vm_strings *reasons);
