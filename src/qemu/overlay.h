/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Disks of one instant: while the VM stands, each of its writable disks goes
 * over to a new, empty qcow2 file in front of it, so that the file which it had
 * until then, the base, stays as it is at that instant.
 *
 *   overlays_plan      nothing is touched: which disks, which files
 *   overlays_create    VM running: QEMU makes the files, by blockdev-create, so
 *                      as its own user, in its own sandbox and mount namespace
 *   overlays_switch    VM standing: one `transaction`, for all disks or none
 *   overlays_keep      the snapshot is complete
 *   overlays_deinit    at any point: files that QEMU did not go over to are
 *                      removed; where it did, and nothing was kept, one line
 *                      for each disk says how to fold it back
 *
 * The files are made ahead since QEMU syncs a new qcow2, which a busy disk can
 * draw out, and because the VM need not even stop for those errors that are
 * likely (permission, space). By QEMU's own mode, "absolute-paths", it would
 * also write the base's name into the file as it was given; a relative one is
 * then looked for beside the overlay.
 *
 * Threads: the caller's. Errors are logged, with the disk and the file.
 */

#include <stddef.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "qemu/disks.h"
#include "qemu/qmp.h"

struct overlay {
	const struct disk *disk; /* the base */
	char *path;		 /* as QEMU sees it */
	char node_name[32];	 /* QEMU's limit, with the NUL */
	int dir_fd;
	bool created;
};

enum overlays_state {
	OVERLAYS_UNUSED, /* the VM runs on its bases */
	OVERLAYS_ASKED,	 /* no answer came, so it may be either */
	OVERLAYS_IN_USE,
	OVERLAYS_KEPT, /* in use, and part of a snapshot */
};

struct overlays {
	struct qmp *qmp;
	pid_t pid;
	struct overlay *overlays; /* n_overlays of them */
	size_t n_overlays;
	enum overlays_state state;
};

/*
 * `disks` are opened (disks_open()) and must stay. `dir` is where the files
 * go, absolute, as the VM sees it; NULL: beside each base. RESULT_UNSUPPORTED
 * where a writable disk is no file; -errno; 0.
 */
int overlays_plan(struct overlays *overlays, struct qmp *qmp, pid_t pid,
		  int proc_fd, const struct disks *disks, const char *dir);

/* 0, -EEXIST, -EREMOTEIO when QEMU can't, or another of qmp.h's. */
int overlays_create(struct overlays *overlays);

/* The same; unless -EREMOTEIO, a failure means that it may have been done. */
int overlays_switch(struct overlays *overlays);

void overlays_keep(struct overlays *overlays);
void overlays_deinit(struct overlays *overlays);
