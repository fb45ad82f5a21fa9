/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What is done about a VM's disks at the instant of its memory: they are looked
 * at.
 *
 *   storage_init       nothing is touched
 *   storage_take       the VM stands
 *   storage_describe   for the image
 */

#include "image/image.h"
#include "qemu/disks.h"
#include "qemu/qmp.h"
#include "target/target.h"

struct storage {
	struct disks disks;
};

#define STORAGE_INIT ((struct storage){})

/* All: 0, RESULT_*, or -errno, logged. */
int storage_init(struct storage *storage, const struct target *target,
		 struct qmp *qmp);

int storage_take(struct storage *storage);
int storage_describe(const struct storage *storage,
		     struct image_machine *machine);
void storage_deinit(struct storage *storage);

#define _cleanup_storage_ _cleanup_(storage_deinit)
