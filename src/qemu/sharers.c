/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/sharers.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"

/* The mappings of guest RAM that another process could have as well. */
struct shared_ram {
	const struct proc_map **maps;
	size_t n_maps;
};

static bool is_ram(const struct proc_map *map, const struct ram_blocks *blocks)
{
	size_t i;

	for (i = 0; i < blocks->n_blocks; i++) {
		const struct ram_block *block = &blocks->blocks[i];
		struct range host = { block->host,
				      block->host + block->max_length };

		if (range_overlaps(map->range, host))
			return true;
	}
	return false;
}

static int find_shared_ram(const struct proc_maps *maps,
			   const struct ram_blocks *blocks,
			   struct shared_ram *out)
{
	size_t i;

	out->n_maps = 0;
	out->maps = calloc(maps->n_maps + 1, sizeof(*out->maps));
	if (!out->maps)
		return -ENOMEM;
	for (i = 0; i < maps->n_maps; i++)
		if (maps->maps[i].shared && maps->maps[i].inode &&
		    is_ram(&maps->maps[i], blocks))
			out->maps[out->n_maps++] = &maps->maps[i];
	return 0;
}

static bool has_mapped(const struct proc_maps *maps,
		       const struct shared_ram *ram)
{
	size_t i, k;

	for (i = 0; i < maps->n_maps; i++) {
		const struct proc_map *map = &maps->maps[i];

		if (!map->shared || !map->write)
			continue;
		for (k = 0; k < ram->n_maps; k++)
			if (map->inode == ram->maps[k]->inode &&
			    map->dev == ram->maps[k]->dev)
				return true;
	}
	return false;
}

/* Looks into one process; one that is gone or closed to us has nothing. */
static int check_process(pid_t pid, const struct shared_ram *ram,
			 struct vm_strings *reasons)
{
	struct proc_maps maps = { 0 };
	struct proc_status status;
	_cleanup_close_ int proc_fd = -1;
	int r = 0;

	proc_fd = procfs_open(pid);
	if (proc_fd < 0 || procfs_read_status(proc_fd, &status) ||
	    procfs_read_maps(proc_fd, &maps))
		return 0;
	if (has_mapped(&maps, ram))
		r = vm_strings_add(reasons,
				   "process %d (%s) has guest memory mapped and"
				   " may write it",
				   pid, status.name);
	proc_maps_deinit(&maps);
	return r;
}

static int check_all(pid_t target, const struct shared_ram *ram,
		     struct vm_strings *reasons)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc");
	struct dirent *entry;
	pid_t pid;
	int r;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		pid = atoi(entry->d_name);
		if (pid <= 0 || pid == target || pid == getpid())
			continue;
		r = check_process(pid, ram, reasons);
		if (r)
			return r;
	}
	return 0;
}

int sharers_list(pid_t pid, const struct proc_maps *maps,
		 const struct ram_blocks *blocks, struct vm_strings *reasons)
{
	struct shared_ram ram = { 0 };
	int r;

	r = find_shared_ram(maps, blocks, &ram);
	if (!r && ram.n_maps)
		r = check_all(pid, &ram, reasons);
	free(ram.maps);
	return r ? log_errno(r, "pid %d: search for sharers of its memory: %m",
			     pid)
		 : 0;
}
