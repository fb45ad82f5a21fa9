/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/procopen.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sys/procfs.h"

struct files {
	struct stat *stats;
	char **links;
	size_t n;
};

static void files_deinit(struct files *files)
{
	for (size_t i = 0; files->links && i < files->n; i++)
		free(files->links[i]);
	free(files->links);
	free(files->stats);
}

#define _cleanup_files_ _cleanup_(files_deinit)

static bool read_link(int dir_fd, const char *name, char link[PATH_MAX])
{
	ssize_t len = readlinkat(dir_fd, name, link, PATH_MAX - 1);

	if (len < 0)
		return false;
	link[len] = '\0';
	return true;
}

static int look_at_files(struct files *files, const int *fds, size_t n)
{
	char path[32], link[PATH_MAX];

	files->stats = calloc(n, sizeof(*files->stats));
	files->links = calloc(n, sizeof(*files->links));
	if (!files->stats || !files->links)
		return -ENOMEM;
	for (; files->n < n; files->n++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[files->n]);
		if (!read_link(AT_FDCWD, path, link) ||
		    fstat(fds[files->n], &files->stats[files->n]))
			return -errno;
		files->links[files->n] = strdup(link);
		if (!files->links[files->n])
			return -ENOMEM;
	}
	return 0;
}

/* "flags:" of fdinfo is octal. */
static bool is_for_writing(int proc_fd, const char *name)
{
	_cleanup_free_ char *text = NULL;
	const char *flags;
	char path[300];

	snprintf(path, sizeof(path), "fdinfo/%s", name);
	if (io_read_file(proc_fd, path, 65536, &text, NULL))
		return false;
	flags = strstr(text, "flags:");
	return flags && (strtoul(flags + strlen("flags:"), NULL, 8) &
			 O_ACCMODE) != O_RDONLY;
}

/* Which of the files a descriptor is; n: none. */
static size_t find(const struct files *files, int dir_fd, const char *name)
{
	char link[PATH_MAX];
	struct stat st;
	size_t i = 0;

	if (!read_link(dir_fd, name, link))
		return files->n;
	while (i < files->n && (strcmp(link, files->links[i]) ||
				fstatat(dir_fd, name, &st, 0) ||
				st.st_dev != files->stats[i].st_dev ||
				st.st_ino != files->stats[i].st_ino))
		i++;
	return i;
}

static int look_at_fds(int proc_fd, const struct files *files, bool *open)
{
	_cleanup_close_ int fd =
		openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir)
		return -errno;
	steal_fd(&fd);
	while ((entry = readdir(dir))) {
		size_t i = find(files, dirfd(dir), entry->d_name);

		if (i < files->n && !open[i])
			open[i] = is_for_writing(proc_fd, entry->d_name);
	}
	return 0;
}

static int look_at(pid_t pid, const struct files *files, procopen_fn fn,
		   void *opaque)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	_cleanup_free_ bool *open = calloc(files->n, sizeof(*open));
	int r = 0;

	if (!open)
		return -ENOMEM;
	if (proc_fd < 0 || look_at_fds(proc_fd, files, open))
		return 0;
	for (size_t i = 0; !r && i < files->n; i++)
		if (open[i])
			r = fn(opaque, i, pid, proc_fd);
	return r;
}

int procopen_walk(const int *fds, size_t n, procopen_fn fn, void *opaque)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_files_ struct files files = {};
	struct dirent *entry;
	int r;

	if (!n)
		return 0;
	r = look_at_files(&files, fds, n);
	dir = r ? NULL : opendir("/proc");
	if (!r && !dir)
		r = -errno;
	while (!r && (entry = readdir(dir))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && pid != getpid())
			r = look_at(pid, &files, fn, opaque);
	}
	return r;
}
