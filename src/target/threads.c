/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/threads.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/util.h"
#include "sys/procstat.h"
#include "sys/procwait.h"

/* A disk may be slow; whoever sleeps for longer may do so for ever. */
#define PATIENCE_NS 2000000000

#define LOOK_MIN_NS 100000
#define LOOK_MAX_NS 20000000

static int describe(char **obstacle, int printed)
{
	if (printed >= 0)
		return 0;
	*obstacle = NULL;
	return -ENOMEM;
}

/* 0 once it was seen awake, or is gone. */
static int wait_awake(const struct target *target, pid_t tid,
		      uint64_t deadline_ns)
{
	uint64_t sleep_ns = LOOK_MIN_NS;

	for (;;) {
		struct proc_stat stat;

		if (procstat_read(target->proc_fd, tid, &stat) ||
		    stat.state != 'D')
			return 0;
		if (interrupt_pending())
			return -EINTR;
		if (now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		nanosleep(&(struct timespec){ .tv_nsec = (long)sleep_ns },
			  NULL);
		sleep_ns = min_u64(sleep_ns * 2, LOOK_MAX_NS);
	}
}

static int check_awake(const struct target *target, pid_t tid,
		       uint64_t deadline_ns, char **obstacle)
{
	char text[128];
	int r = wait_awake(target, tid, deadline_ns);

	if (r != -ETIMEDOUT)
		return r;
	procwait_describe(target->proc_fd, tid, text, sizeof(text));
	return describe(
		obstacle,
		asprintf(
			obstacle,
			"thread %d is in uninterruptible sleep (%s) and cannot be stopped before that ends",
			tid, text));
}

static int check_thread(const struct target *target, pid_t tid, bool all,
			uint64_t deadline_ns, char **obstacle)
{
	struct proc_status status;
	char name[64];
	int r = procfs_read_thread_status(target->proc_fd, tid, &status);

	if (r)
		return r == -ESRCH ? 0 : r;
	if (status.tracer_pid) {
		procfs_read_name(status.tracer_pid, name, sizeof(name));
		return describe(
			obstacle,
			asprintf(
				obstacle,
				"thread %d is traced by process %d (%s); detach that debugger first",
				tid, status.tracer_pid, name));
	}
	if (status.state != 'D' || (!all && tid != target->pid))
		return 0;
	return check_awake(target, tid, deadline_ns, obstacle);
}

int threads_find_obstacle(const struct target *target, bool all,
			  char **obstacle)
{
	uint64_t deadline_ns = now_ns() + PATIENCE_NS;
	_cleanup_free_ pid_t *tids = NULL;
	size_t n = 0;
	int r;

	*obstacle = NULL;
	r = procfs_read_threads(target->proc_fd, &tids, &n);
	for (size_t i = 0; !r && !*obstacle && i < n; i++)
		r = check_thread(target, tids[i], all, deadline_ns, obstacle);
	if (r == -EINTR)
		return r;
	return r ? log_errno(r, "pid %d: its threads: %m", target->pid) : 0;
}
