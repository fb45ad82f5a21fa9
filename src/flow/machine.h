/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What must be known of a VM to run it again: its QEMU, machine, command line
 * and RAM blocks. Its disks are of the instant: flow/storage.h.
 */

#include <stdbool.h>

#include "flow/ram.h"
#include "image/image.h"
#include "qemu/qmp.h"
#include "target/target.h"

/* Asks the VM and /proc; 0, RESULT_*, or -errno; logs. */
int machine_gather(struct image_machine *machine, const struct target *target,
		   struct qmp *qmp, const struct ram *ram, bool running);

#define _cleanup_machine_ _cleanup_(image_machine_deinit)
