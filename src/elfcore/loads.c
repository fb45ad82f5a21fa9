/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "elfcore/internal.h"

#include <elf.h>
#include <sys/mman.h>

#include "base/util.h"

static uint32_t flags_of(unsigned prot)
{
	return (prot & PROT_READ ? PF_R : 0) | (prot & PROT_WRITE ? PF_W : 0) |
	       (prot & PROT_EXEC ? PF_X : 0);
}

/* Of [start, end), the first `file_len` bytes are at `offset` of the core. */
static size_t add_load(struct buffer *to, unsigned prot, uint64_t start,
		       uint64_t end, uint64_t file_len, uint64_t offset)
{
	Elf64_Phdr load = {
		.p_type = PT_LOAD,
		.p_flags = flags_of(prot),
		.p_offset = offset,
		.p_vaddr = start,
		.p_filesz = file_len,
		.p_memsz = end - start,
		.p_align = PAGE_SIZE,
	};

	buffer_append(to, &load, sizeof(load));
	return 1;
}

/*
 * A header for each part of the mapping that a region holds, and what follows
 * it without being held: memory that is longer than what the file has, the
 * kernel's own way to say that it left something out. What no region holds
 * although it is within `held` is zero, and not in the file either: it is of
 * mappings that are far too large and were never populated. There a debugger
 * says that it has no memory, or shows zeros.
 */
static size_t add_mapping(struct buffer *to, const struct image_mapping *map,
			  const struct image_region *const *sorted, size_t n,
			  size_t *next)
{
	uint64_t at = map->start, held_end = map->start + map->held;
	size_t n_loads = 0, i;

	/* Those that end before are of no use to later mappings either. */
	while (*next < n &&
	       sorted[*next]->address + sorted[*next]->length <= map->start)
		++*next;
	for (i = *next; i < n && sorted[i]->address < held_end; i++) {
		const struct image_region *region = sorted[i];
		uint64_t start = max_u64(region->address, map->start);
		uint64_t held =
			min_u64(region->address + region->length, held_end);
		uint64_t end = map->end;

		if (held <= start)
			continue;
		if (i + 1 < n && sorted[i + 1]->address < held_end)
			end = max_u64(sorted[i + 1]->address, held);
		if (at < start)
			n_loads += add_load(to, map->prot, at, start, 0, 0);
		n_loads += add_load(to, map->prot, start, end, held - start,
				    region->pages_offset + start -
					    region->address);
		at = end;
	}
	if (at < map->end)
		n_loads += add_load(to, map->prot, at, map->end, 0, 0);
	return n_loads;
}

size_t elfcore_add_loads(struct buffer *to, const struct image_process *process,
			 const struct image_region *const *sorted, size_t n)
{
	size_t n_loads = 0, next = 0;

	for (size_t i = 0; i < process->n_mappings; i++)
		n_loads += add_mapping(to, &process->mappings[i], sorted, n,
				       &next);
	return n_loads;
}
