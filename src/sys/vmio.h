/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Another process's memory by process_vm_readv(2) and process_vm_writev(2):
 * what the process itself may read or write, no more, needing the right to
 * trace it. 0 or -errno: -EFAULT when a part of the range is not mapped or not
 * allowed, -ESRCH when the process is gone. Any thread may call.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/util.h"

/* All of `len` bytes; on an error the buffer is undefined. */
int vm_read(pid_t pid, uint64_t remote_addr, void *buf, size_t len);
int vm_write(pid_t pid, uint64_t remote_addr, const void *buf, size_t len);

/*
 * Reads `n` ranges, in order, to one buffer of at least their total length.
 * `n_bytes` counts what was read before the first page that failed, on success
 * and on an error.
 */
int vm_read_ranges(pid_t pid, const struct range *ranges, size_t n, void *buf,
		   size_t *n_bytes);

/*
 * The same through an open /proc/PID/mem, which gives also what the process
 * itself may not read at the moment (PROT_NONE), as to a debugger. Slower.
 */
int vm_read_ranges_forced(int mem_fd, const struct range *ranges, size_t n,
			  void *buf);
