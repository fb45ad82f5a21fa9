/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/clone_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"

/* Not /tmp: the VM's disks grow here. */
#define TEMPLATE "/var/tmp/snapuffd-restore-XXXXXX"

int clone_dir_init(struct clone_dir *dir, const char *path, bool pretend)
{
	_cleanup_free_ char *parent = NULL;

	*dir = (struct clone_dir){ .path = strdup(path ? path : TEMPLATE) };
	if (!dir->path)
		return -ENOMEM;
	if (pretend)
		return 0;
	if (path ? mkdir(path, 0700) : !mkdtemp(dir->path)) {
		if (errno == EEXIST)
			return log_errno(
				-EEXIST,
				"%s: exists already, maybe another VM runs in it; choose another --dir",
				path);
		return log_errno(-errno, "%s: cannot make the directory: %m",
				 dir->path);
	}
	dir->made = true;
	/* QEMU may run elsewhere. */
	parent = realpath(dir->path, NULL);
	if (!parent)
		return log_errno(-errno, "%s: %m", dir->path);
	free(dir->path);
	dir->path = steal_ptr(parent);
	return 0;
}

void clone_dir_keep(struct clone_dir *dir)
{
	dir->made = false;
}

static void remove_files(const char *path)
{
	_cleanup_closedir_ DIR *files = opendir(path);
	struct dirent *entry;

	while (files && (entry = readdir(files)))
		unlinkat(dirfd(files), entry->d_name, 0);
}

void clone_dir_deinit(struct clone_dir *dir)
{
	if (dir->made) {
		remove_files(dir->path);
		rmdir(dir->path);
	}
	free(dir->path);
	*dir = (struct clone_dir){};
}
