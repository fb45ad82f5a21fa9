/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Stopping processes by the freezer of their cgroup, as a transaction: one that
 * is not ended lets them run again when it goes out of scope, and a keeper does
 * if we die.
 *
 * Functions return 0, or RESULT_* / -errno after one error line.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "flow/keeper.h"
#include "sys/cgroup.h"
#include "target/target.h"

struct cgroup_freeze {
	struct cgroup cgroup;
	struct keeper keeper;
	pid_t pid;
	bool frozen;
};

#define CGROUP_FREEZE_INIT \
	((struct cgroup_freeze){ .cgroup = CGROUP_INIT, .keeper = KEEPER_INIT })

/*
 * The cgroup of `target`, in which there must be nobody but the `n` processes
 * given, and not us: RESULT_UNSUPPORTED. Forks; before there are threads.
 */
int cgroup_freeze_prepare(struct cgroup_freeze *freeze,
			  const struct target *target, const pid_t *pids,
			  size_t n);

int cgroup_freeze_begin(struct cgroup_freeze *freeze, uint64_t max_ns);
int cgroup_freeze_end(struct cgroup_freeze *freeze);

void cgroup_freeze_deinit(struct cgroup_freeze *freeze);
