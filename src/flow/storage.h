/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What is done about a VM's disks at the instant of its memory: they are looked
 * at, go over to overlays (--disks overlay), or are snapshot by a command of
 * the user's (--exec-frozen).
 *
 *   storage_init       nothing is touched; refuses what cannot be done
 *   storage_arm        the command's process waits; before threads, and while
 *                      all capabilities are there
 *   storage_prepare    QEMU makes the overlays' files; the VM runs
 *   storage_take       the VM stands
 *   storage_describe   for the image
 *   storage_keep       the snapshot is complete
 */

#include <stdbool.h>

#include "flow/hook.h"
#include "image/image.h"
#include "qemu/disks.h"
#include "qemu/overlay.h"
#include "qemu/qmp.h"
#include "target/target.h"

struct storage_options {
	bool overlay;
	const char *overlay_dir; /* absolute, as the VM sees it; NULL: beside */
	const char *command;	 /* to be run in the pause, or NULL */
	unsigned command_timeout_s;
};

struct storage {
	struct disks disks;
	struct overlays overlays; /* none unless asked for */
	struct hook hook;
};

#define STORAGE_INIT ((struct storage){ .hook = HOOK_INIT })

/* All: 0, RESULT_*, or -errno, logged. */
int storage_init(struct storage *storage, const struct storage_options *options,
		 const struct target *target, struct qmp *qmp);

/* `out` and `qmp_path` (may be NULL) are told to the command. */
int storage_arm(struct storage *storage, const struct storage_options *options,
		const struct target *target, const char *out,
		const char *qmp_path);
int storage_prepare(struct storage *storage);
int storage_take(struct storage *storage);
int storage_describe(const struct storage *storage,
		     struct image_machine *machine);
void storage_keep(struct storage *storage);

/* Also on the way out: overlays that are not in use are removed. */
void storage_deinit(struct storage *storage);

#define _cleanup_storage_ _cleanup_(storage_deinit)
