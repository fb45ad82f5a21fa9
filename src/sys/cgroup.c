/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"
#include "sys/pidlist.h"

#define MOUNT_POINT  "/sys/fs/cgroup"
#define MOUNT_HYBRID "/sys/fs/cgroup/unified"
#define LIST_MAX     (16 * MIB)
#define LEVELS_MAX   64

/* "0::/path", the line of the unified hierarchy. */
static int read_path(int proc_fd, char **path)
{
	_cleanup_free_ char *text = NULL;
	char *at, *end;
	int r = io_read_file(proc_fd, "cgroup", MIB, &text, NULL);

	if (r)
		return r;
	at = strncmp(text, "0::", 3) ? strstr(text, "\n0::") : text;
	if (!at)
		return -ENOENT;
	at = strchr(at, '/');
	if (!at)
		return -ENOENT;
	end = strchr(at, '\n');
	if (!strncmp(at, "/\n", 2) || !strncmp(at, "/..", 3))
		return -ENOENT;
	*path = strndup(at, end ? (size_t)(end - at) : strlen(at));
	return *path ? 0 : -ENOMEM;
}

static int open_dir(const char *path)
{
	static const char *const mounts[] = { MOUNT_HYBRID, MOUNT_POINT };

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		_cleanup_free_ char *name = NULL;
		int fd;

		if (asprintf(&name, "%s%s", mounts[i], path) < 0)
			return -ENOMEM;
		fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 || errno != ENOENT)
			return fd < 0 ? -errno : fd;
	}
	return -ENOENT;
}

static int is_frozen(const struct cgroup *cgroup)
{
	char text[256];
	ssize_t n = pread(cgroup->events_fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return -errno;
	text[n] = '\0';
	return strstr(text, "frozen 1") ? 1 : 0;
}

int cgroup_open(struct cgroup *cgroup, int proc_fd)
{
	char asked[8] = "";
	int r;

	*cgroup = CGROUP_INIT;
	r = read_path(proc_fd, &cgroup->path);
	if (r)
		return r;
	cgroup->dir_fd = open_dir(cgroup->path);
	if (cgroup->dir_fd < 0)
		return cgroup->dir_fd;
	cgroup->freeze_fd =
		openat(cgroup->dir_fd, "cgroup.freeze", O_RDWR | O_CLOEXEC);
	cgroup->events_fd =
		openat(cgroup->dir_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
	if (cgroup->freeze_fd < 0 || cgroup->events_fd < 0)
		return -errno;
	if (pread(cgroup->freeze_fd, asked, sizeof(asked) - 1, 0) < 0)
		return -errno;
	r = is_frozen(cgroup);
	if (r < 0)
		return r;
	return r || *asked == '1' ? -EBUSY : 0;
}

bool cgroup_holds(int proc_fd)
{
	_cleanup_(cgroup_close) struct cgroup cgroup = CGROUP_INIT;

	if (read_path(proc_fd, &cgroup.path))
		return false;
	cgroup.dir_fd = open_dir(cgroup.path);
	if (cgroup.dir_fd < 0)
		return false;
	cgroup.events_fd =
		openat(cgroup.dir_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
	return cgroup.events_fd >= 0 && is_frozen(&cgroup) > 0;
}

void cgroup_close(struct cgroup *cgroup)
{
	close_fd(&cgroup->dir_fd);
	close_fd(&cgroup->freeze_fd);
	close_fd(&cgroup->events_fd);
	free_ptr(&cgroup->path);
}

static int list_dir(int dir_fd, struct pid_list *list, unsigned levels);

static int list_below(int dir_fd, struct pid_list *list, unsigned levels)
{
	_cleanup_close_ int fd =
		openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int r = 0;

	if (!dir)
		return -errno;
	steal_fd(&fd);
	while (!r && (entry = readdir(dir))) {
		_cleanup_close_ int below = -1;

		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		below = openat(dir_fd, entry->d_name,
			       O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (below >= 0)
			r = list_dir(below, list, levels - 1);
	}
	return r;
}

static int list_dir(int dir_fd, struct pid_list *list, unsigned levels)
{
	_cleanup_free_ char *text = NULL;
	int r;

	if (!levels)
		return -ELOOP;
	r = io_read_file(dir_fd, "cgroup.procs", LIST_MAX, &text, NULL);
	/* A threaded one lists no processes. */
	if (r && r != -EOPNOTSUPP)
		return r == -ENOENT ? 0 : r;
	r = text ? pid_list_parse(list, text) : 0;
	return r ? r : list_below(dir_fd, list, levels);
}

int cgroup_list(const struct cgroup *cgroup, pid_t **pids, size_t *n)
{
	struct pid_list list = {};
	int r = list_dir(cgroup->dir_fd, &list, LEVELS_MAX);

	if (r) {
		free(list.pids);
		return r;
	}
	*pids = list.pids;
	*n = list.n;
	return 0;
}

int cgroup_freeze(const struct cgroup *cgroup, int timeout_ms)
{
	uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000;
	struct pollfd poll_fd = { .fd = cgroup->events_fd, .events = POLLPRI };

	if (pwrite(cgroup->freeze_fd, "1", 1, 0) < 0)
		return -errno;
	for (;;) {
		int r = is_frozen(cgroup);

		if (r)
			return r < 0 ? r : 0;
		if (now_ns() >= deadline)
			return -ETIMEDOUT;
		/* A change between the look and the wait is not lost. */
		poll(&poll_fd, 1, 1);
	}
}

int cgroup_thaw(const struct cgroup *cgroup)
{
	return pwrite(cgroup->freeze_fd, "0", 1, 0) < 0 ? -errno : 0;
}
