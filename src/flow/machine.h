/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What must be known of a VM to run it again: its QEMU, machine, command line,
 * RAM blocks and disks.
 */

#include <stdbool.h>

#include "flow/ram.h"
#include "image/writer.h"
#include "qemu/qmp.h"
#include "target/target.h"

/* Asks the VM and /proc, and stores it; 0, RESULT_*, or -errno; logs. */
int put_machine(struct image_writer *writer, const struct target *target,
		struct qmp *qmp, const struct ram *ram, bool running);
