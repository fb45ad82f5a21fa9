/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/ram.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "qemu/ramscan.h"

/* The mapping that holds all of `range`, with those behind it that go on in
 * the same way (a part of a block may have been split off by mprotect or
 * madvise); NULL when it is not mapped throughout, or not of one kind. */
static const struct proc_map *find_mapping(const struct proc_maps *maps,
					   struct range range)
{
	const struct proc_map *first = proc_maps_find(maps, range.start);
	const struct proc_map *map, *next;

	if (!first)
		return NULL;
	for (map = first; map->range.end < range.end; map = next) {
		next = map + 1;
		if (next == maps->maps + maps->n_maps ||
		    next->range.start != map->range.end ||
		    next->shared != first->shared || next->dev != first->dev ||
		    next->inode != first->inode ||
		    (first->inode &&
		     next->offset != map->offset + range_len(map->range)))
			return NULL;
	}
	return first;
}

/* The same number for all regions of a file, from 1 on; the last one is new. */
static uint64_t number_file(const struct ram *ram, const struct proc_map *map)
{
	for (size_t i = 0; i + 1 < ram->n_regions; i++) {
		const struct region_desc *desc = &ram->regions[i].desc;
		const struct proc_map *other =
			proc_maps_find(&ram->maps, desc->range.start);

		if (other && other->dev == map->dev &&
		    other->inode == map->inode)
			return desc->file_id;
	}
	return ram->n_regions;
}

static int describe(const struct ram *ram, const struct target *target,
		    const struct ram_block *block, const struct proc_map *map,
		    struct range range, struct ram_region *region)
{
	region->desc = (struct region_desc){
		.range = range,
		.page_size = block->page_size,
		.fd = -1,
		.shared = map->shared,
	};
	region->backing = !map->inode	? IMAGE_BACKING_ANON
			  : map->shared ? IMAGE_BACKING_SHARED
					: IMAGE_BACKING_PRIVATE_FILE;
	if (!map->inode)
		return 0;

	region->file = strdup(map->path);
	if (!region->file)
		return -ENOMEM;
	region->desc.file_id = number_file(ram, map);
	region->desc.fd_offset = map->offset + range.start - map->range.start;
	region->desc.fd = target_open_mapped_file(target, map);
	return region->desc.fd < 0 ? region->desc.fd : 0;
}

static int add_region(struct ram *ram, const struct target *target, size_t i)
{
	const struct ram_block *block = &ram->blocks.blocks[i];
	struct range range = { block->host,
			       block->host + ROUND_UP(block->used_length,
						      PAGE_SIZE) };
	struct ram_region *regions;
	const struct proc_map *map;

	map = find_mapping(&ram->maps, range);
	if (!map || !map->read) {
		log_error(
			"pid %d: RAM block %s is not mapped as one piece of memory at %#" PRIx64,
			target->pid, block->name, range.start);
		return RESULT_UNSUPPORTED;
	}
	if (block->page_size != PAGE_SIZE && block->page_size != PMD_SIZE) {
		log_error("pid %d: RAM block %s has pages of %" PRIu64
			  " KiB; only 4 KiB and 2 MiB pages can be dumped",
			  target->pid, block->name, block->page_size / KIB);
		return RESULT_UNSUPPORTED;
	}
	if (block->used_length % PAGE_SIZE || range.start % block->page_size) {
		log_error("pid %d: RAM block %s is not made of whole pages",
			  target->pid, block->name);
		return RESULT_UNSUPPORTED;
	}

	regions = reallocarray(ram->regions, ram->n_regions + 1,
			       sizeof(*regions));
	if (!regions)
		return -ENOMEM;
	ram->regions = regions;
	regions[ram->n_regions] = (struct ram_region){ .block = i };
	return describe(ram, target, block, map, range,
			&regions[ram->n_regions++]);
}

int ram_init(struct ram *ram, const struct target *target, struct qmp *qmp)
{
	int r;

	*ram = (struct ram){};
	r = ram_blocks_query(qmp, &ram->blocks);
	if (!r)
		r = target_read_maps(target, &ram->maps);
	if (!r)
		r = ramscan_find(target->pid, target->proc_fd, &ram->maps,
				 &ram->blocks, NULL);
	for (size_t i = 0; !r && i < ram->blocks.n_blocks; i++)
		if (ram->blocks.blocks[i].migratable &&
		    ram->blocks.blocks[i].used_length)
			r = add_region(ram, target, i);
	return r;
}

int ram_list_files(const struct ram *ram, struct writers *writers)
{
	int r = 0;

	for (size_t i = 0; !r && i < ram->n_regions; i++) {
		const struct region_desc *desc = &ram->regions[i].desc;

		if (desc->fd >= 0 && desc->shared)
			r = writers_add_file(
				writers,
				proc_maps_find(&ram->maps, desc->range.start),
				desc->fd, desc->file_id, desc->page_size);
	}
	return r;
}

void ram_deinit(struct ram *ram)
{
	for (size_t i = 0; i < ram->n_regions; i++) {
		close_fd(&ram->regions[i].desc.fd);
		free(ram->regions[i].file);
	}
	free(ram->regions);
	proc_maps_deinit(&ram->maps);
	ram_blocks_deinit(&ram->blocks);
	*ram = (struct ram){};
}
