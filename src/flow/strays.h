/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Processes that were forked off a dumped one after it was looked at who shares
 * its memory, and before that was registered, and their children: no
 * userfaultfd came of them. What they write to memory that they share is not
 * seen.
 *
 * Whoever is forked later has mappings that are registered, and shows it.
 */

#include <stdint.h>

#include "flow/writers.h"
#include "qemu/vm.h"

/*
 * The dumped processes are registered; they may run. Appends to `strays` a line
 * for each that is neither known to `writers` nor older than `since_ns`
 * (procstat_now_ns()). Where it finds none there never will be one. 0, or
 * -errno after one error line.
 */
int strays_find(const struct writers *writers, uint64_t since_ns,
		struct vm_strings *strays);
