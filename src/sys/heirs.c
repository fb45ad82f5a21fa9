/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/heirs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sys/kcmp.h"
#include "sys/procfs.h"
#include "sys/procstat.h"

#define LINK_NAME "anon_inode:[userfaultfd]"

/* The last word of /proc/loadavg; of the pid namespace that we are in, where
 * those of all below it have numbers, too. */
static long read_last_pid(void)
{
	_cleanup_free_ char *text = NULL;
	const char *word;

	if (io_read_file(AT_FDCWD, "/proc/loadavg", 256, &text, NULL))
		return -1;
	word = strrchr(text, ' ');
	return word ? strtol(word, NULL, 10) : -1;
}

struct heirs_mark heirs_mark(void)
{
	return (struct heirs_mark){ procstat_now_ns(), read_last_pid() };
}

/* A kernel that cannot compare them: it is taken for one. */
static bool is_one_of(const int *uffds, size_t n, pid_t pid, int fd)
{
	for (size_t i = 0; i < n; i++) {
		int r = kcmp_same_file(getpid(), uffds[i], pid, fd);

		if (r > 0 || r == -ENOSYS || r == -EPERM)
			return true;
	}
	return false;
}

static bool has_one(int proc_fd, pid_t pid, const int *uffds, size_t n)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int fd = openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return false;
	dir = fdopendir(fd);
	if (!dir) {
		close_fd(&fd);
		return false;
	}
	while ((entry = readdir(dir))) {
		char link[sizeof(LINK_NAME)];
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, link,
					 sizeof(link));

		if (len == sizeof(LINK_NAME) - 1 &&
		    !memcmp(link, LINK_NAME, (size_t)len) &&
		    is_one_of(uffds, n, pid, atoi(entry->d_name)))
			return true;
	}
	return false;
}

int heirs_find(const int *uffds, size_t n, const struct heirs_mark *mark,
	       pid_t *heir)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;

	if (mark->last_pid >= 0 && read_last_pid() == mark->last_pid)
		return 0;
	dir = opendir("/proc");
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		pid_t pid = atoi(entry->d_name);
		_cleanup_close_ int proc_fd = pid > 0 ? procfs_open(pid) : -1;
		struct proc_stat stat;

		if (proc_fd < 0 || procstat_read(proc_fd, 0, &stat) ||
		    stat.started_ns < mark->started_ns ||
		    procfs_runs_program_of(proc_fd, getpid()) ||
		    !has_one(proc_fd, pid, uffds, n))
			continue;
		*heir = pid;
		return 1;
	}
	return 0;
}
