/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/strays.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "sys/smaps.h"

/* Whether it is memory of the target that is armed. */
static bool is_armed_in_target(const struct writers *writers,
			       const struct proc_map *map)
{
	for (size_t i = 0; i < writers->n_files; i++) {
		const struct writers_file *file = &writers->files[i];

		if (file->id && file->map.dev == map->dev &&
		    file->map.inode == map->inode)
			return true;
	}
	return false;
}

/* The first mapping by which it writes to armed memory unseen, or NULL. One
 * that has gone since it was listed is none. */
static const struct proc_map *find_unseen(const struct writers *writers,
					  const struct proc_maps *maps,
					  const struct smap *smaps, size_t n)
{
	for (size_t i = 0; i < maps->n_maps; i++) {
		const struct proc_map *map = &maps->maps[i];
		const struct smap *smap;

		if (!map->shared || !map->write || !map->inode ||
		    !is_armed_in_target(writers, map))
			continue;
		smap = smaps_find(smaps, n, map->range.start);
		if (smap && !(smap->flags & SMAP_UFFD))
			return map;
	}
	return NULL;
}

struct search {
	const struct writers *writers;
	struct vm_strings *strays;
};

/* Shares memory; one that cannot be looked at has exited. */
static int look_at(void *opaque, pid_t pid, const char *name,
		   const struct proc_map *shared)
{
	struct search *search = opaque;
	_cleanup_close_ int proc_fd = procfs_open(pid);
	_cleanup_free_ struct smap *smaps = NULL;
	struct proc_maps maps = {};
	const struct proc_map *map;
	size_t n;
	int r = 0;

	(void)shared;
	if (proc_fd < 0 || procfs_read_maps(proc_fd, &maps))
		return 0;
	if (!smaps_read(proc_fd, &smaps, &n)) {
		map = find_unseen(search->writers, &maps, smaps, n);
		if (map)
			r = vm_strings_add(
				search->strays,
				"process %d (%s) was started meanwhile, has %.100s mapped and may write to it",
				pid, name, map->path);
	}
	proc_maps_deinit(&maps);
	return r;
}

int strays_find(const struct writers *writers, uint64_t since_ns,
		struct vm_strings *strays)
{
	struct search search = { writers, strays };

	return writers_walk(writers, since_ns, look_at, &search);
}
