/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/sharers.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "target/sharers.h"

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

static int add_reason(void *opaque, pid_t pid, const char *name,
		      const struct proc_map *map)
{
	(void)map;
	return vm_strings_add(
		opaque,
		"process %d (%s) has guest memory mapped and may write it", pid,
		name);
}

int sharers_list(pid_t pid, const struct proc_maps *maps,
		 const struct ram_blocks *blocks, struct vm_strings *reasons)
{
	struct shared_ram ram = { 0 };
	int r;

	r = find_shared_ram(maps, blocks, &ram);
	if (!r)
		r = sharers_walk(ram.maps, ram.n_maps, &pid, 1, add_reason,
				 reasons);
	free(ram.maps);
	return r ? log_errno(r, "pid %d: search for sharers of its memory: %m",
			     pid)
		 : 0;
}
