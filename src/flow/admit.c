/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/admit.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/result.h"
#include "parasite/admission.h"
#include "sys/uffd.h"
#include "target/threads.h"

/* The kernel asks nothing like it of who protects memory only. */
static int check_forks(const struct target *target, char **obstacle)
{
	if (uffd_may_follow_forks() != -EPERM)
		return 0;
	*obstacle = strdup(
		"CAP_SYS_PTRACE is needed to follow the children of a process, also of one's own");
	return *obstacle ? 0 : log_errno(-ENOMEM, "pid %d: %m", target->pid);
}

int admit_find_obstacle(const struct target *target, bool all, char **obstacle)
{
	int r = threads_find_obstacle(target, all, obstacle);

	if (!r && !*obstacle)
		r = admission_find_obstacle(target, obstacle);
	if (!r && !*obstacle && all)
		r = check_forks(target, obstacle);
	return r;
}

int admit(const struct target *target, bool all)
{
	_cleanup_free_ char *obstacle = NULL;
	int r = admit_find_obstacle(target, all, &obstacle);

	if (r || !obstacle)
		return r;
	log_error("pid %d: %s", target->pid, obstacle);
	return RESULT_UNSUPPORTED;
}
