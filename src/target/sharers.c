/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/sharers.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sys/pidlist.h"
#include "sys/procstat.h"

static const struct proc_map *find_common(const struct proc_maps *theirs,
					  const struct proc_map *const *maps,
					  size_t n_maps)
{
	for (size_t i = 0; i < theirs->n_maps; i++) {
		const struct proc_map *map = &theirs->maps[i];

		if (!map->shared || !map->write)
			continue;
		for (size_t k = 0; k < n_maps; k++)
			if (map->inode == maps[k]->inode &&
			    map->dev == maps[k]->dev)
				return maps[k];
	}
	return NULL;
}

static bool is_older(int proc_fd, uint64_t since_ns)
{
	struct proc_stat stat;

	return since_ns && !procstat_read(proc_fd, 0, &stat) &&
	       stat.started_ns < since_ns;
}

static int look_at(pid_t pid, const struct proc_map *const *maps, size_t n_maps,
		   uint64_t since_ns, sharers_fn fn, void *opaque)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	struct proc_maps theirs = {};
	struct proc_status status;
	const struct proc_map *common;
	int r = 0;

	if (proc_fd < 0 || is_older(proc_fd, since_ns) ||
	    procfs_read_status(proc_fd, &status) ||
	    procfs_read_maps(proc_fd, &theirs))
		return 0;
	common = find_common(&theirs, maps, n_maps);
	if (common)
		r = fn(opaque, pid, status.name, common);
	proc_maps_deinit(&theirs);
	return r;
}

int sharers_walk(const struct proc_map *const *maps, size_t n_maps,
		 const pid_t *except, size_t n_except, uint64_t since_ns,
		 sharers_fn fn, void *opaque)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int r = 0;

	if (!n_maps)
		return 0;
	dir = opendir("/proc");
	if (!dir)
		return -errno;
	while (!r && (entry = readdir(dir))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && pid != getpid() &&
		    !pid_is_in(pid, except, n_except))
			r = look_at(pid, maps, n_maps, since_ns, fn, opaque);
	}
	return r;
}
