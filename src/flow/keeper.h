/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A process beside the dumper that holds the target whenever the target could
 * be hurt by the dumper's death: it traces it while the parasite is inside, and
 * it knows when the VM, or a cgroup, is stopped. It has a session of its own
 * and no signal but SIGKILL reaches it; when the dumper dies, however, it
 * finishes what is under way, lets the VM run, has it close the descriptor for
 * the device state, and ends. It has no capability left once it was asked for
 * the first time: a userfaultfd is asked for before all else.
 *
 * A VM that does not take `cont` on the dumper's connection is told on another
 * one, again and again for KEEPER_TRIES_S, since a QEMU that hangs for a while,
 * in the flush of its disks for one, continues no VM before it is over.
 *
 * Forked before the engine and the tracer have threads. Those of a writer
 * without io_uring may be there: they wait for their first job, and hold no
 * lock that the child would need. Errors are logged by the keeper.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/watch.h"
#include "target/target.h"

#define KEEPER_TRIES_S 600

struct keeper {
	pid_t pid;
	int sock;
	struct watch *watch;
	pid_t target_pid; /* for messages */
};

#define KEEPER_INIT ((struct keeper){ .pid = -1, .sock = -1 })

/* What is to be kept beside the target. */
struct keeper_charge {
	int qmp_fd;	      /* the VM's monitor, or -1 */
	bool is_courier;      /* that is a courier's (qemu/courier.h) */
	const char *qmp_path; /* where that is; NULL: it is looked for */
	int freeze_fd;	      /* the cgroup.freeze of a process, or -1 */
	struct watch *watch;  /* may be NULL */
};

/* The target must stay open meanwhile. */
int keeper_start(struct keeper *keeper, const struct target *target,
		 const struct keeper_charge *charge);

/*
 * Infects the target, takes a userfaultfd of its memory, cures it. Returns 0
 * and the descriptor; the code of parasite_infect() or parasite_make_uffd();
 * or -EPIPE when the keeper itself was killed.
 */
int keeper_take_uffd(struct keeper *keeper, int *uffd);

/*
 * The same by a keeper of its own, which then ends; the descriptor is
 * initialised with `features`. Logs.
 */
int keeper_fetch_uffd(const struct target *target, struct watch *watch,
		      uint64_t features, int *uffd);

/* Tells whether the target, from now on, is to be continued on our death. 0 or
 * -errno, logged: then it must not be stopped. */
int keeper_guard(struct keeper *keeper, bool stopped);

/* Ends the keeper; a VM that is still guarded is continued. A keeper that does
 * not succeed in that soon is left behind, which is told. */
void keeper_stop(struct keeper *keeper);

#define _cleanup_keeper_ _cleanup_(keeper_stop)
