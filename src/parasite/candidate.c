/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "parasite/candidate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/result.h"
#include "parasite/place.h"

#define refuse(...) (log_error(__VA_ARGS__), RESULT_UNSUPPORTED)

/* A directory like /proc/PID, of one thread: where the main thread has exited,
 * that of the process shows no memory. */
static int open_thread(int proc_fd, pid_t tid)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "task/%d", tid);
	fd = openat(proc_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return fd;
}

static bool has_exited(const struct proc_status *status)
{
	return status->state == 'Z' || status->state == 'X';
}

bool candidate_has_thread(int proc_fd, pid_t tid)
{
	struct proc_status status;

	return !procfs_read_thread_status(proc_fd, tid, &status) &&
	       !has_exited(&status);
}

static int refuse_traced(pid_t pid, pid_t tracer)
{
	char name[64];

	procfs_read_name(tracer, name, sizeof(name));
	return refuse("pid %d: is traced by process %d (%s)", pid, tracer,
		      name);
}

static int check_status(pid_t pid, const struct proc_status *status)
{
	if (status->tracer_pid)
		return refuse_traced(pid, status->tracer_pid);
	if (status->kernel_thread)
		return refuse("pid %d: is a kernel thread", pid);
	if (has_exited(status))
		return refuse("pid %d: has exited", pid);
	if (status->state == 'T' || status->state == 't')
		return refuse("pid %d: is stopped; SIGCONT would change that",
			      pid);
	return 0;
}

/* One that waits is stopped at once, one in uninterruptible sleep (D) may
 * never be. */
static unsigned rank(const struct proc_status *status)
{
	return status->state == 'S' ? 3 : status->state == 'R' ? 2 : 1;
}

/* Another one for a main thread that has exited. */
static int choose_thread(struct candidate *candidate, int proc_fd)
{
	_cleanup_free_ pid_t *tids = NULL;
	unsigned best = 0;
	size_t n_tids;
	int err;

	err = procfs_read_threads(proc_fd, &tids, &n_tids);
	for (size_t i = 0; i < n_tids && !err; i++) {
		struct proc_status status;

		if (procfs_read_thread_status(proc_fd, tids[i], &status) ||
		    has_exited(&status) || rank(&status) <= best)
			continue;
		best = rank(&status);
		candidate->tid = tids[i];
		candidate->status = status;
	}
	if (err)
		return err == -ESRCH ? err
				     : log_errno(err, "pid %d: threads: %m",
						 candidate->pid);
	return best ? 0 : refuse("pid %d: has exited", candidate->pid);
}

static int choose(struct candidate *candidate, int proc_fd)
{
	int err;

	candidate->tid = candidate->pid;
	err = procfs_read_thread_status(proc_fd, candidate->tid,
					&candidate->status);
	if (err)
		return err == -ESRCH ? err
				     : log_errno(err, "pid %d: status: %m",
						 candidate->pid);
	if (has_exited(&candidate->status))
		err = choose_thread(candidate, proc_fd);
	return err ? err : check_status(candidate->pid, &candidate->status);
}

static int read_maps(const struct candidate *candidate, int proc_fd,
		     struct proc_maps *maps)
{
	_cleanup_close_ int fd = open_thread(proc_fd, candidate->tid);

	return fd < 0 ? fd : procfs_read_maps(fd, maps);
}

static int find_stack(const struct proc_maps *maps, struct range *stack)
{
	for (size_t i = 0; i < maps->n_maps; i++) {
		if (strcmp(maps->maps[i].path, "[stack]"))
			continue;
		*stack = maps->maps[i].range;
		return 0;
	}
	return -ENOENT;
}

int candidate_read_stack(const struct candidate *candidate, int proc_fd,
			 struct range *stack)
{
	_cleanup_(proc_maps_deinit) struct proc_maps maps = { 0 };
	int err = read_maps(candidate, proc_fd, &maps);

	return err ? err : find_stack(&maps, stack);
}

static int find_memory(struct candidate *candidate, int proc_fd)
{
	_cleanup_(proc_maps_deinit) struct proc_maps maps = { 0 };
	pid_t pid = candidate->pid;
	int err;

	err = read_maps(candidate, proc_fd, &maps);
	if (err)
		return err == -ESRCH ? err
				     : log_errno(err, "pid %d: maps: %m", pid);
	if (find_stack(&maps, &candidate->stack))
		return refuse("pid %d: has no stack mapping", pid);
	err = arch_find_gadgets(candidate->tid, &maps, &candidate->gadgets);
	if (err == -ENOENT)
		return refuse("pid %d: maps no code that calls rt_sigreturn, "
			      "its way back",
			      pid);
	if (err)
		return log_errno(err, "pid %d: reading its code: %m", pid);
	if (!candidate->gadgets.store)
		log_debug("pid %d: maps no code to store a result with", pid);
	return 0;
}

int candidate_refresh(struct candidate *candidate, int proc_fd)
{
	struct range stack;
	int err = candidate_read_stack(candidate, proc_fd, &stack);

	if (!err && stack.end == candidate->stack.end &&
	    arch_has_gadgets(candidate->tid, &candidate->gadgets))
		return 0;
	return err == -ESRCH ? err : find_memory(candidate, proc_fd);
}

/* A thread whose tracer was killed may still be on its way home: only while it
 * is held itself can that be told. */
static int follow_owner(struct candidate *candidate, int proc_fd)
{
	pid_t owner = place_read_owner(candidate->tid, candidate->stack);

	if (!owner || owner == candidate->tid ||
	    candidate->tid == candidate->pid ||
	    !candidate_has_thread(proc_fd, owner))
		return 0;
	candidate->tid = owner;
	if (procfs_read_thread_status(proc_fd, owner, &candidate->status))
		return -ESRCH;
	return check_status(candidate->pid, &candidate->status);
}

int candidate_find(struct candidate *candidate, pid_t pid, int proc_fd)
{
	int err;

	*candidate = (struct candidate){ .pid = pid };
	err = choose(candidate, proc_fd);
	if (!err)
		err = find_memory(candidate, proc_fd);
	return err ? err : follow_owner(candidate, proc_fd);
}

int candidate_check_held(const struct candidate *candidate, int proc_fd)
{
	_cleanup_free_ pid_t *tids = NULL;
	struct proc_status status;
	size_t n_tids;
	int err;

	err = procfs_read_thread_status(proc_fd, candidate->tid, &status);
	if (err)
		return err;
	if (status.tracer_pid != gettid())
		return -ESRCH;
	if (candidate->tid == candidate->pid)
		return 0;
	/* Both of two tracers have seized before they look. */
	err = procfs_read_threads(proc_fd, &tids, &n_tids);
	if (err)
		return err;
	for (size_t i = 0; i < n_tids; i++) {
		if (tids[i] == candidate->tid ||
		    procfs_read_thread_status(proc_fd, tids[i], &status))
			continue;
		if (status.tracer_pid)
			return refuse_traced(candidate->pid, status.tracer_pid);
	}
	return 0;
}
