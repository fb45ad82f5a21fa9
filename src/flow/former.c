/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/former.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/procfs.h"
#include "sys/procstat.h"

/* To let go takes milliseconds; a VM's monitor may make it wait for seconds. */
#define PATIENCE_NS   10000000000
#define LOOK_EVERY_MS 10

#define FDINFO_MAX 4096

struct former {
	pid_t pid;    /* 0: there is none */
	bool is_over; /* its front is gone */
};

/* Whether the process has a pidfd of `pid`, as who dumps it does (fdinfo). */
static bool has_pidfd_of(int proc_fd, pid_t pid)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	char line[32];
	int fd;

	fd = openat(proc_fd, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	dir = fdopendir(fd);
	if (!dir) {
		close_fd(&fd);
		return false;
	}
	snprintf(line, sizeof(line), "\nPid:\t%d\n", pid);
	while ((entry = readdir(dir))) {
		_cleanup_free_ char *text = NULL;

		if (*entry->d_name != '.' &&
		    !io_read_file(dirfd(dir), entry->d_name, FDINFO_MAX, &text,
				  NULL) &&
		    strstr(text, line))
			return true;
	}
	return false;
}

static void look_at(pid_t pid, pid_t target, struct former *former)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	bool is_engine, is_keeper;
	struct proc_stat stat;

	if (proc_fd < 0 || procstat_read(proc_fd, 0, &stat))
		return;
	is_engine = !strcmp(stat.name, "snapuffd-engine");
	is_keeper = !strcmp(stat.name, "snapuffd-keeper");
	if ((!is_engine && !is_keeper) || !has_pidfd_of(proc_fd, target))
		return;
	/* A keeper has an engine, or what the engine left to do. */
	if (is_keeper && former->pid)
		return;
	*former = (struct former){
		.pid = pid,
		.is_over = is_keeper ||
			   !procfs_runs_program_of(proc_fd, stat.ppid),
	};
}

static struct former find(pid_t target)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	struct former former = {};
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && pid != getpid())
			look_at(pid, target, &former);
	}
	return former;
}

int former_wait(pid_t pid)
{
	uint64_t deadline = now_ns() + PATIENCE_NS;
	struct former former = find(pid);

	if (former.pid && former.is_over)
		log_info(
			"pid %d: process %d, of a dump that was killed, still has it; waiting",
			pid, former.pid);
	while (former.pid && former.is_over && now_ns() < deadline) {
		if (interrupt_pending())
			return -EINTR;
		poll(NULL, 0, LOOK_EVERY_MS);
		former = find(pid);
	}
	if (!former.pid)
		return 0;
	if (former.is_over)
		log_error(
			"pid %d: process %d, of a dump that was killed, has not let go of it yet; wait until that process ends",
			pid, former.pid);
	else
		log_error(
			"pid %d: process %d is dumping it already; wait until that dump ends",
			pid, former.pid);
	return RESULT_UNSUPPORTED;
}
