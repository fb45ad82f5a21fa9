/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The freezer of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst): one write
 * stops every process of a cgroup and of those below it. 0 or -errno; no
 * logging.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct cgroup {
	char *path; /* below the mount, for messages */
	int dir_fd;
	int freeze_fd; /* cgroup.freeze, to be written */
	int events_fd; /* cgroup.events */
};

#define CGROUP_INIT \
	((struct cgroup){ .dir_fd = -1, .freeze_fd = -1, .events_fd = -1 })

/*
 * The cgroup that a process is in. -ENOENT: it is in the root, which has no
 * freezer, or there is no cgroup v2; -EBUSY: it is frozen already. To be closed
 * either way.
 */
int cgroup_open(struct cgroup *cgroup, int proc_fd);
void cgroup_close(struct cgroup *cgroup);

/* Whether a process stands because its cgroup, or one above that, is frozen.
 * False where that cannot be read: there may be no cgroup v2. */
bool cgroup_holds(int proc_fd);

/* All processes in it and below it; an array to free. */
int cgroup_list(const struct cgroup *cgroup, pid_t **pids, size_t *n);

/* Waits until all stand; -ETIMEDOUT, and they may stand or not. */
int cgroup_freeze(const struct cgroup *cgroup, int timeout_ms);
int cgroup_thaw(const struct cgroup *cgroup);
