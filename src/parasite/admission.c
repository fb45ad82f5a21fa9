/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "parasite/admission.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "base/util.h"
#include "sys/caps.h"
#include "sys/procfds.h"
#include "sys/procstat.h"
#include "sys/ptrace.h"
#include "sys/uffd.h"

/* Of the target, at a time: the userfaultfd; or a socket, the device and what
 * comes of it (parasite.c). */
#define FDS_BY_SYSCALL 1
#define FDS_BY_DEVICE  3

/* /proc/PID/ns/user of the first user namespace, linux/proc_ns.h. */
#define INIT_USER_NS "user:[4026531837]"

static int describe(char **obstacle, int printed)
{
	if (printed >= 0)
		return 0;
	*obstacle = NULL;
	return log_errno(-ENOMEM, "parasite: %m");
}

static bool is_filtered_itself(void)
{
	_cleanup_close_ int proc_fd = procfs_open(getpid());
	struct proc_status status;

	return proc_fd >= 0 && !procfs_read_status(proc_fd, &status) &&
	       status.seccomp;
}

static int check_seccomp(const struct target *target, char **obstacle)
{
	int r;

	if (!target->status.seccomp)
		return 0;
	r = ptrace_can_suspend_seccomp();
	if (!r)
		return 0;
	if (r == -EPERM && is_filtered_itself())
		r = asprintf(
			obstacle,
			"it has a seccomp filter, which cannot be suspended by a snapuffd that has one itself; run that outside of its container or sandbox");
	else if (r == -EPERM)
		r = asprintf(
			obstacle,
			"it has a seccomp filter, and CAP_SYS_ADMIN%s is needed to suspend that",
			caps_have(CAP_SYS_ADMIN)
				? " in the first user namespace"
				: "");
	else
		r = asprintf(
			obstacle,
			"it has a seccomp filter, which cannot be suspended: %s",
			strerror(-r));
	return describe(obstacle, r);
}

/* As the kernel decides it in userfaultfd_syscall_allowed(). */
static bool may_call_userfaultfd(const struct target *target)
{
	_cleanup_free_ char *allowed = NULL, *user_ns = NULL;
	struct proc_creds creds;
	bool may;

	if (io_read_file(AT_FDCWD, "/proc/sys/vm/unprivileged_userfaultfd", MIB,
			 &allowed, NULL) ||
	    *allowed != '0')
		return true;
	may = !procstat_read_creds(target->proc_fd, &creds) &&
	      creds.cap_effective >> CAP_SYS_PTRACE & 1;
	free(creds.groups);
	return may && !procfs_read_link(target->proc_fd, "ns/user", &user_ns) &&
	       !strcmp(user_ns, INIT_USER_NS);
}

static int check_device(char **obstacle)
{
	_cleanup_close_ int fd = uffd_open_device();

	if (fd >= 0)
		return 0;
	return describe(
		obstacle,
		asprintf(
			obstacle,
			"it may not call userfaultfd(2) (vm.unprivileged_userfaultfd is 0), and /dev/userfaultfd cannot be opened: %s%s",
			strerror(-fd),
			fd == -EACCES ? " (CAP_DAC_READ_SEARCH is needed)"
				      : ""));
}

static int check_descriptors(const struct target *target, uint64_t needed,
			     char **obstacle)
{
	uint64_t n_free;
	int r = procfds_count_free(target->proc_fd, needed, &n_free);

	if (r)
		return log_errno(r, "pid %d: its descriptors: %m", target->pid);
	if (n_free >= needed)
		return 0;
	return describe(
		obstacle,
		asprintf(
			obstacle,
			"it has %" PRIu64
			" descriptors free below its limit of open files, and %" PRIu64
			" are needed for a moment; raise that (prlimit --nofile) or close some",
			n_free, needed));
}

int admission_find_obstacle(const struct target *target, char **obstacle)
{
	bool by_syscall = may_call_userfaultfd(target);
	int r;

	*obstacle = NULL;
	r = check_seccomp(target, obstacle);
	if (!r && !*obstacle && !by_syscall)
		r = check_device(obstacle);
	if (!r && !*obstacle)
		r = check_descriptors(
			target, by_syscall ? FDS_BY_SYSCALL : FDS_BY_DEVICE,
			obstacle);
	return r;
}
