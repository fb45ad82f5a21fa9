/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The time for which a VM stands, as a transaction: one that is not ended lets
 * the VM run again when it goes out of scope, and the keeper does if we die, or
 * if QEMU does not answer. Each call of QEMU gets what is left of the time that
 * the VM may stand for.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/watch.h"
#include "flow/keeper.h"
#include "qemu/qmp.h"
#include "sys/sched.h"

struct freeze {
	struct qmp *qmp;
	struct keeper *keeper;
	struct watch *watch;
	pid_t pid;
	bool stopped;
	uint64_t started_ns;
	uint64_t max_ns;     /* 0: as long as it takes */
	uint64_t excused_ns; /* that does not count */
	struct sched_before before;
};

/* Stops the VM, unless it is not `running` anyway: then it stays as it is.
 * qmp, keeper, watch, pid, and max_ns are set. */
int freeze_begin(struct freeze *freeze, bool running);

/* Between steps: 0; RESULT_FAILED, logged, when the VM stands for too long; or
 * -EINTR: it is to be given up. */
int freeze_check(struct freeze *freeze);

/* What follows, until freeze_go_on(), has a time limit of its own. */
void freeze_excuse(struct freeze *freeze, uint64_t limit_ns);
void freeze_go_on(struct freeze *freeze, uint64_t took_ns);

/* Lets it run; *pause_ns is how long it stood, 0 if it was not running. */
int freeze_end(struct freeze *freeze, uint64_t *pause_ns);

/* For the way out; does nothing when it has ended. */
void freeze_undo(struct freeze *freeze);

#define _cleanup_freeze_ _cleanup_(freeze_undo)
