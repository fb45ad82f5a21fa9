/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A VM's RAM, as the capture engine and the image want it: one region for each
 * migratable RAM block.
 */

#include <stddef.h>

#include "capture/region.h"
#include "flow/writers.h"
#include "image/image.h"
#include "qemu/qmp.h"
#include "qemu/ramblock.h"
#include "target/target.h"

struct ram_region {
	struct region_desc desc; /* its fd is owned here */
	size_t block;		 /* index into `blocks` */
	enum image_backing backing;
	char *file; /* what backs it, or NULL */
};

struct ram {
	struct ram_blocks blocks;
	struct proc_maps maps; /* of the target, when the blocks were read */
	struct ram_region *regions;
	size_t n_regions;
};

/*
 * Finds all RAM of the VM and opens the files of shared memory. 0;
 * RESULT_UNSUPPORTED after one error line for memory that cannot be dumped; or
 * -errno, logged. The caller deinits `ram` in every case.
 */
int ram_init(struct ram *ram, const struct target *target, struct qmp *qmp);
void ram_deinit(struct ram *ram);

/* Tells `writers` the files that RAM is a shared mapping of. 0 or -ENOMEM. */
int ram_list_files(const struct ram *ram, struct writers *writers);

#define _cleanup_ram_ _cleanup_(ram_deinit)
