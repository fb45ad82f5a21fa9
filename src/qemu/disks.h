/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The image files of a VM's block devices.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qemu/qmp.h"
#include "sys/procfs.h"

struct disk {
	char *device;	 /* "virtio0", or its QOM path */
	char *node_name; /* maybe generated: "#block123" */
	char *file;    /* as QEMU names it: maybe relative to its cwd, a URL */
	char *format;  /* "qcow2", "raw", … */
	char *backing; /* the image's backing file; NULL: none */
	bool read_only;
	bool encrypted;	       /* by QEMU */
	uint64_t virtual_size; /* bytes that the guest sees */
	/* disks_open(): O_PATH of what `file`, absolute then, leads to; -1. */
	int fd;
	bool is_block; /* a block device, not a regular file */
	/* disks_look(). */
	bool has_stat;
	uint64_t size; /* bytes */
	int64_t mtime_ns;
};

struct disks {
	struct disk *disks;
	size_t n_disks;
};

/* What is inserted in each block device. 0, or -errno after one error line. */
int disks_query(struct qmp *qmp, struct disks *out);
void disks_deinit(struct disks *disks);

/*
 * Finds the files and block devices behind the disks, as the target sees them,
 * and makes their names absolute. What is neither (a URL, a descriptor that was
 * passed in, a name that leads to no file that the target has open) stays as
 * QEMU names it. 0 or -errno, logged.
 */
int disks_open(struct disks *disks, int proc_fd);

/*
 * Size and time of change of each file that was opened, as they are now: one
 * system call a disk, for the time in which the VM stands. A block device has
 * neither: its node does not change when it is written to.
 */
void disks_look(struct disks *disks);

/*
 * Writes back what the page cache holds of the target's image files, so that
 * `stop`, which flushes them all, has little left to do. Goes by the target's
 * descriptors, not by names: every file or block device it holds open for
 * writing and has not mapped shared, so it also works for unlinked, renamed
 * and passed-in files. A file that fails is skipped: this only saves time.
 */
void disks_sync(int proc_fd, const struct proc_maps *maps);
