/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/filewatch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>

#include "base/cleanup.h"

int filewatch_open(void)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

int filewatch_add(int watch_fd, int fd)
{
	char path[32];
	int wd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	wd = inotify_add_watch(watch_fd, path, IN_MODIFY);
	return wd < 0 ? -errno : wd;
}

int filewatch_next(int watch_fd)
{
	/* Of a file, not of a directory: it has no name. So one at a time. */
	struct inotify_event event;
	ssize_t len;

	do {
		len = read(watch_fd, &event, sizeof(event));
		if (len < 0)
			return -errno;
	} while (event.mask & IN_IGNORED);
	return event.mask & IN_Q_OVERFLOW ? FILEWATCH_SOME : event.wd;
}

/* By memfd_create(2), or by somebody who looks like that. Others that the
 * kernel keeps on the same mount, nobody can open. */
static bool is_memfd(int fd)
{
	static const char prefix[] = "/memfd:";
	char path[32], link[sizeof(prefix)];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, link, sizeof(link));
	return len == sizeof(link) && !memcmp(link, prefix, len - 1);
}

/* What is true of ours is so of any. */
bool filewatch_is_blind(int fd)
{
	_cleanup_close_ int own = -1, watch_fd = -1;

	if (!is_memfd(fd))
		return false;
	own = memfd_create("snapuffd", MFD_CLOEXEC);
	watch_fd = filewatch_open();
	return filewatch_add(watch_fd, own) < 0 || write(own, "", 1) != 1 ||
	       filewatch_next(watch_fd) < 0;
}
