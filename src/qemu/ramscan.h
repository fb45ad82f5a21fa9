/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Finds QEMU's struct RAMBlock of each block in the target's memory, which
 * tells its host address and flags; QMP tells neither before 8.0, and never
 * the flags. LP64 layout, the same from 5.0 to 10.2 up to the links
 * (include/exec/ramblock.h, later include/system/ramblock.h; flags in
 * include/exec/memory.h):
 *
 *   0x18 host  0x28 offset  0x30 used_length  0x38 max_length
 *   0x48 u32 flags (2 shared, 4 resizeable, 16 migratable)
 *   0x4c idstr[256]  0x150 le_next  0x158 le_prev
 *
 * A hit counts only when its lengths and offset are those of `info ramblock`,
 * its host is that of `info ramblock` if that tells one, the whole block is
 * mapped there, and its neighbours in QEMU's list point back to it.
 *
 * Reads with process_vm_readv and only pages that exist; stops nothing.
 */

#include <stdint.h>
#include <sys/types.h>

#include "qemu/ramblock.h"
#include "sys/procfs.h"

struct ramscan_stats {
	uint64_t bytes_read;
	unsigned n_maps; /* that were looked into */
	uint64_t duration_ns;
};

/*
 * Fills what ramblock.h says is this module's in every block. The target may
 * be running. `proc_fd` is its /proc directory, `maps` its mappings, read
 * after `blocks`. Returns 0; RESULT_UNSUPPORTED after one error line that
 * names a block that was not found; -errno, logged. `stats` may be NULL.
 */
int ramscan_find(pid_t pid, int proc_fd, const struct proc_maps *maps,
		 struct ram_blocks *blocks, struct ramscan_stats *stats);

/*
 * Whether the blocks are still as they were found: none resized, moved, gone
 * or new. Takes some microseconds a block, so it may be asked in the freeze,
 * where the answer holds until the thaw. 0, -ESTALE when not, logged.
 */
int ramscan_recheck(pid_t pid, const struct ram_blocks *blocks);
