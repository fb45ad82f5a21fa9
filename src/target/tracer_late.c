/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/tracer_internal.h"

/*
 * Why a thread has not stopped. One that can run stops as soon as it gets a
 * processor: another time it will. One that sleeps where no signal wakes it may
 * do so for long.
 */

#include <errno.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "sys/procfs.h"
#include "sys/procstat.h"

static char read_state(const struct target *target, pid_t tid)
{
	struct proc_stat stat;

	return procstat_read(target->proc_fd, tid, &stat) ? '?' : stat.state;
}

/* The function of the kernel that it waits in: /proc/PID/task/TID/wchan. */
static void read_function(const struct target *target, pid_t tid, char *name,
			  size_t size)
{
	_cleanup_free_ char *text = NULL;
	char path[48];
	bool known;

	snprintf(path, sizeof(path), "task/%d/wchan", tid);
	known = !io_read_file(target->proc_fd, path, 4096, &text, NULL) &&
		*text && strcmp(text, "0");
	snprintf(name, size, "%s", known ? text : "an unknown function");
}

/* 't': it has, by now. */
static bool is_starved(char state)
{
	return state == 'R' || state == 't';
}

static int say_starved(pid_t pid, pid_t tid, uint64_t ms)
{
	log_error(
		"pid %d: thread %d did not stop in %llu ms: it can run (R) and was given no processor; try again when the machine is less busy, or with a longer --max-pause",
		pid, tid, (unsigned long long)ms);
	return -ETIME;
}

static int say_asleep(const struct target *target, pid_t tid, char state,
		      uint64_t ms)
{
	struct proc_syscall call;
	char function[64], number[48] = "";

	read_function(target, tid, function, sizeof(function));
	if (!procfs_read_syscall(target->proc_fd, tid, &call) && call.nr >= 0)
		snprintf(number, sizeof(number), ", in system call %ld",
			 call.nr);
	log_error(
		"pid %d: thread %d did not stop in %llu ms: it sleeps (%c) in %s of the kernel%s; try again when that has ended, or with a longer --max-pause",
		target->pid, tid, (unsigned long long)ms, state, function,
		number);
	return -ETIMEDOUT;
}

int tracer_say_late(const struct tracer *tracer, const size_t *late, size_t n,
		    uint64_t ms)
{
	const struct tracer_thread *thread = &tracer->threads[late[0]];

	for (size_t i = 0; i < n; i++) {
		const struct tracer_thread *other = &tracer->threads[late[i]];
		const struct target *target =
			tracer->processes[other->process].target;
		char state = read_state(target, other->tid);

		if (!is_starved(state))
			return say_asleep(target, other->tid, state, ms);
	}
	return say_starved(tracer->processes[thread->process].target->pid,
			   thread->tid, ms);
}
