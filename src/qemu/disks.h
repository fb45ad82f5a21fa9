/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The image files of a VM's block devices.
 */

#include <stdbool.h>
#include <stddef.h>

#include "qemu/qmp.h"
#include "sys/procfs.h"

struct disk {
	char *device;	 /* "virtio0", or its QOM path */
	char *node_name; /* maybe generated: "#block123" */
	char *file;    /* as QEMU names it: maybe relative to its cwd, a URL */
	char *format;  /* "qcow2", "raw", … */
	char *backing; /* the image's backing file; NULL: none */
	bool read_only;
};

struct disks {
	struct disk *disks;
	size_t n_disks;
};

/* What is inserted in each block device. 0, or -errno after one error line. */
int disks_query(struct qmp *qmp, struct disks *out);
void disks_deinit(struct disks *disks);

/*
 * Writes back what the page cache holds of the target's image files, so that
 * `stop`, which flushes them all, has little left to do. Goes by the target's
 * descriptors, not by names: every file or block device it holds open for
 * writing and has not mapped shared, so it also works for unlinked, renamed
 * and passed-in files. A file that fails is skipped: this only saves time.
 */
void disks_sync(int proc_fd, const struct proc_maps *maps);
