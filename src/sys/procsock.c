/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/procsock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "sys/procfs.h"

static DIR *open_fd_dir(int proc_fd)
{
	int fd = openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir;

	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (!dir)
		close_fd(&fd);
	return dir;
}

/* 0: not a socket. */
static uint32_t socket_inode(DIR *dir, const char *name)
{
	unsigned inode;
	char link[64];
	ssize_t len;

	len = readlinkat(dirfd(dir), name, link, sizeof(link) - 1);
	if (len < 0)
		return 0;
	link[len] = '\0';
	return sscanf(link, "socket:[%u]", &inode) == 1 ? inode : 0;
}

int procsock_list(int proc_fd, struct proc_sockets *out)
{
	_cleanup_closedir_ DIR *dir = open_fd_dir(proc_fd);
	struct proc_socket *grown;
	struct dirent *entry;
	uint32_t inode;

	*out = (struct proc_sockets){ 0 };
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		inode = socket_inode(dir, entry->d_name);
		if (!inode)
			continue;
		grown = reallocarray(out->sockets, out->n_sockets + 1,
				     sizeof(*grown));
		if (!grown) {
			proc_sockets_deinit(out);
			return -ENOMEM;
		}
		out->sockets = grown;
		grown[out->n_sockets++] = (struct proc_socket){
			.fd = atoi(entry->d_name),
			.inode = inode,
		};
	}
	return 0;
}

void proc_sockets_deinit(struct proc_sockets *list)
{
	free(list->sockets);
	*list = (struct proc_sockets){ 0 };
}

bool proc_sockets_has(const struct proc_sockets *list, uint32_t inode)
{
	size_t i;

	for (i = 0; i < list->n_sockets; i++)
		if (list->sockets[i].inode == inode)
			return true;
	return false;
}

static bool holds(pid_t pid, uint32_t inode)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_close_ int proc_fd = -1;
	struct dirent *entry;

	proc_fd = procfs_open(pid);
	if (proc_fd < 0)
		return false;
	dir = open_fd_dir(proc_fd);
	while (dir && (entry = readdir(dir)))
		if (socket_inode(dir, entry->d_name) == inode)
			return true;
	return false;
}

pid_t procsock_find_holder(uint32_t inode, pid_t except)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	struct dirent *entry;
	pid_t pid;

	while (inode && dir && (entry = readdir(dir))) {
		pid = atoi(entry->d_name);
		if (pid > 0 && pid != except && holds(pid, inode))
			return pid;
	}
	return 0;
}
