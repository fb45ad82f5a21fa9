/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What of a process shows that its memory may be written to other than through
 * its page tables: devices that do DMA, and pages that are pinned for long.
 * proc(5), and Documentation/filesystems/proc.rst. No logging.
 */

#include <stdint.h>

struct proc_pins {
	/* VmPin of /proc/PID/status, bytes: what RDMA, VFIO, iommufd and
	 * io_uring have pinned. */
	uint64_t pinned_bytes;
	/* A descriptor of one that does DMA, as /proc/PID/fd shows it; "". */
	char device[64];
	/* Buffers that are registered with its io_urings: pinned as well. */
	unsigned n_buffers;
};

/* 0, -ESRCH, or -errno. */
int procpins_read(int proc_fd, struct proc_pins *pins);
