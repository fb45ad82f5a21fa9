/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What is done about a VM's disks at the instant of its memory: they are looked
 * at, or go over to overlays (--disks overlay).
 *
 *   storage_init       nothing is touched; refuses what cannot be done
 *   storage_prepare    QEMU makes the overlays' files; the VM runs
 *   storage_take       the VM stands
 *   storage_describe   for the image
 *   storage_keep       the snapshot is complete
 */

#include <stdbool.h>

#include "image/image.h"
#include "qemu/disks.h"
#include "qemu/overlay.h"
#include "qemu/qmp.h"
#include "target/target.h"

struct storage_options {
	bool overlay;
	const char *overlay_dir; /* absolute, as the VM sees it; NULL: beside */
};

struct storage {
	struct disks disks;
	struct overlays overlays; /* none unless asked for */
};

#define STORAGE_INIT ((struct storage){})

/* All: 0, RESULT_*, or -errno, logged. */
int storage_init(struct storage *storage, const struct storage_options *options,
		 const struct target *target, struct qmp *qmp);

int storage_prepare(struct storage *storage);
int storage_take(struct storage *storage);
int storage_describe(const struct storage *storage,
		     struct image_machine *machine);
void storage_keep(struct storage *storage);

/* Also on the way out: overlays that are not in use are removed. */
void storage_deinit(struct storage *storage);

#define _cleanup_storage_ _cleanup_(storage_deinit)
