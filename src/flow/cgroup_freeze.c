/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/cgroup_freeze.h"

#include <errno.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/pidlist.h"

/* In it there are these processes, and nobody else. */
static int check_members(const struct cgroup_freeze *freeze, const pid_t *pids,
			 size_t n)
{
	const char *path = freeze->cgroup.path;
	_cleanup_free_ pid_t *members = NULL;
	size_t n_members;
	int r = cgroup_list(&freeze->cgroup, &members, &n_members);

	if (r)
		return log_errno(r, "cgroup %s: %m", path);
	for (size_t i = 0; i < n_members; i++) {
		if (pid_is_in(members[i], pids, n))
			continue;
		log_error(
			"pid %d: --freeze cgroup: its cgroup %s holds process %d as well, which would stand, too; give the target a cgroup of its own, or freeze by ptrace",
			freeze->pid, path, members[i]);
		return RESULT_UNSUPPORTED;
	}
	for (size_t i = 0; i < n; i++) {
		if (pid_is_in(pids[i], members, n_members))
			continue;
		log_error(
			"pid %d: --freeze cgroup: process %d is not in its cgroup %s",
			freeze->pid, pids[i], path);
		return RESULT_UNSUPPORTED;
	}
	return 0;
}

int cgroup_freeze_prepare(struct cgroup_freeze *freeze,
			  const struct target *target, const pid_t *pids,
			  size_t n)
{
	struct keeper_charge charge = { .qmp_fd = -1 };
	int r;

	freeze->pid = target->pid;
	r = cgroup_open(&freeze->cgroup, target->proc_fd);
	if (r == -ENOENT) {
		log_error(
			"pid %d: --freeze cgroup: it is in no cgroup (v2) that could be frozen",
			freeze->pid);
		return RESULT_UNSUPPORTED;
	}
	if (r == -EBUSY) {
		log_error("pid %d: --freeze cgroup: %s is frozen already",
			  freeze->pid, freeze->cgroup.path);
		return RESULT_UNSUPPORTED;
	}
	if (r)
		return log_errno(r, "pid %d: its cgroup: %m", freeze->pid);
	r = check_members(freeze, pids, n);
	if (r)
		return r;
	charge.freeze_fd = freeze->cgroup.freeze_fd;
	return keeper_start(&freeze->keeper, target, &charge);
}

int cgroup_freeze_begin(struct cgroup_freeze *freeze, uint64_t max_ns)
{
	int r = keeper_guard(&freeze->keeper, true);

	if (r)
		return r;
	freeze->frozen = true;
	r = INJECT("cgroup-freeze");
	if (!r)
		r = cgroup_freeze(&freeze->cgroup, (int)(max_ns / 1000000));
	INJECT_INTO(r, "cgroup-freeze-done");
	return r ? log_errno(r, "cgroup %s: freezing it: %m",
			     freeze->cgroup.path)
		 : 0;
}

int cgroup_freeze_end(struct cgroup_freeze *freeze)
{
	int r;

	if (!freeze->frozen)
		return 0;
	r = INJECT("cgroup-thaw") ?: cgroup_thaw(&freeze->cgroup);
	/* If that failed, the keeper is left on guard and tries again. */
	if (r)
		return log_errno(r, "cgroup %s: thawing it: %m",
				 freeze->cgroup.path);
	freeze->frozen = false;
	return keeper_guard(&freeze->keeper, false);
}

void cgroup_freeze_deinit(struct cgroup_freeze *freeze)
{
	cgroup_freeze_end(freeze);
	keeper_stop(&freeze->keeper);
	cgroup_close(&freeze->cgroup);
}
