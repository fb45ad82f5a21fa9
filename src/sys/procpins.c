/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/procpins.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"

/* drivers/vfio, drivers/iommu/iommufd, drivers/vhost/vdpa.c,
 * drivers/infiniband/core. */
static bool does_dma(const char *link)
{
	static const char *const prefixes[] = {
		"/dev/vfio/",	   "anon_inode:[vfio-",	     "/dev/iommu",
		"/dev/vhost-vdpa", "/dev/infiniband/uverbs",
	};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (!strncmp(link, prefixes[i], strlen(prefixes[i])))
			return true;
	return false;
}

/* The number behind "\nNAME:" of a text that has such lines. */
static uint64_t find_number(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* io_uring/fdinfo.c. */
static unsigned count_buffers(int proc_fd, const char *fd)
{
	_cleanup_free_ char *text = NULL;
	char path[300];

	snprintf(path, sizeof(path), "fdinfo/%s", fd);
	if (io_read_file(proc_fd, path, 16 * MIB, &text, NULL))
		return 0;
	return (unsigned)find_number(text, "\nUserBufs:");
}

static int look_at_fds(int proc_fd, struct proc_pins *pins)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_close_ int fd =
		openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	steal_fd(&fd);
	while ((entry = readdir(dir))) {
		char link[sizeof(pins->device)];
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, link,
					 sizeof(link) - 1);

		if (len < 0)
			continue;
		link[len] = '\0';
		if (!*pins->device && does_dma(link))
			strcpy(pins->device, link);
		else if (!strcmp(link, "anon_inode:[io_uring]"))
			pins->n_buffers +=
				count_buffers(proc_fd, entry->d_name);
	}
	return 0;
}

int procpins_read(int proc_fd, struct proc_pins *pins)
{
	_cleanup_free_ char *text = NULL;
	int r;

	*pins = (struct proc_pins){};
	r = io_read_file(proc_fd, "status", MIB, &text, NULL);
	if (!r) {
		pins->pinned_bytes = find_number(text, "\nVmPin:") * KIB;
		r = look_at_fds(proc_fd, pins);
	}
	return r == -ENOENT ? -ESRCH : r;
}
