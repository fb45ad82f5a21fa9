/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The time for which a VM stands, as a transaction: one that is not ended lets
 * the VM run again when it goes out of scope, and the keeper does if we die.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "flow/keeper.h"
#include "qemu/qmp.h"
#include "sys/sched.h"

struct freeze {
	struct qmp *qmp;
	struct keeper *keeper;
	bool stopped;
	uint64_t started_ns;
	struct sched_before before;
};

#define FREEZE_INIT ((struct freeze){})

/* Stops the VM, unless it is not `running` anyway: then it stays as it is. */
int freeze_begin(struct freeze *freeze, struct qmp *qmp, struct keeper *keeper,
		 bool running);

/* Lets it run; *pause_ns is how long it stood, 0 if it was not running. */
int freeze_end(struct freeze *freeze, uint64_t *pause_ns);

/* For the way out; does nothing when it has ended. */
void freeze_undo(struct freeze *freeze);

#define _cleanup_freeze_ _cleanup_(freeze_undo)
