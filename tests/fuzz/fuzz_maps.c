/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include "sys/procfs.h"

/* /proc/PID/maps, in which names are the process's. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	struct proc_maps maps;
	uint64_t floor = 0;

	fuzz_put("maps", part);
	if (procfs_read_maps(fuzz_dir(), &maps))
		return 0;
	for (size_t i = 0; i < maps.n_maps; i++) {
		const struct proc_map *map = &maps.maps[i];

		fuzz_require(map->path && map->range.start >= floor);
		fuzz_require(map->range.start < map->range.end);
		fuzz_require(proc_maps_find(&maps, map->range.start) == map);
		floor = map->range.end;
	}
	proc_maps_deinit(&maps);
	return 0;
}
