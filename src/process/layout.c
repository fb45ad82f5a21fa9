/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "process/layout.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"

/* Documentation/filesystems/proc.rst, coredump_filter. */
enum {
	FILTER_ANON_PRIVATE = 1 << 0,
	FILTER_ANON_SHARED = 1 << 1,
	FILTER_FILE_PRIVATE = 1 << 2,
	FILTER_FILE_SHARED = 1 << 3,
	FILTER_ELF_HEADERS = 1 << 4,
	FILTER_HUGETLB_PRIVATE = 1 << 5,
	FILTER_HUGETLB_SHARED = 1 << 6,
};

static bool is_named(const struct proc_map *map, const char *name)
{
	return !map->inode && !strcmp(map->path, name);
}

/* Pages that the kernel makes up: they cannot be read. */
static bool is_made_up(const struct proc_map *map)
{
	return is_named(map, "[vvar]") || is_named(map, "[vvar_vclock]") ||
	       is_named(map, "[vsyscall]") || is_named(map, "[uprobes]");
}

bool layout_is_sysv(const struct proc_map *map)
{
	return map->shared && map->inode && !strncmp(map->path, "/SYSV", 5);
}

static bool has_no_name(const struct proc_map *map)
{
	static const char suffix[] = " (deleted)";
	size_t len = strlen(map->path);

	return len >= sizeof(suffix) &&
	       !strcmp(map->path + len - (sizeof(suffix) - 1), suffix);
}

static uint64_t length(const struct proc_map *map)
{
	return range_len(map->range);
}

/* fs/coredump.c, vma_dump_size(): how much of a mapping a core holds. */
static uint64_t choose_held(const struct proc_map *map,
			    const struct layout_rules *rules,
			    const struct mapped_file *file, unsigned flags,
			    bool hugetlb, bool written)
{
	uint32_t filter = rules->filter;
	bool whole;

	if (is_made_up(map) || flags & SMAP_DEVICE)
		return 0;
	if (rules->all || is_named(map, "[vdso]"))
		return length(map);
	if (flags & SMAP_DONTDUMP)
		return 0;
	if (hugetlb)
		whole = filter & (map->shared ? FILTER_HUGETLB_SHARED
					      : FILTER_HUGETLB_PRIVATE);
	else if (map->shared)
		whole = filter & (has_no_name(map) ? FILTER_ANON_SHARED
						   : FILTER_FILE_SHARED);
	else
		whole = (written && filter & FILTER_ANON_PRIVATE) ||
			(file && filter & FILTER_FILE_PRIVATE);
	if (whole)
		return length(map);
	if (file && file->is_elf && !map->shared && !map->offset && map->read &&
	    filter & FILTER_ELF_HEADERS)
		return PAGE_SIZE;
	return 0;
}

static enum layout_how choose_how(const struct proc_map *map,
				  const struct mapped_file *file,
				  unsigned flags, bool written)
{
	if (is_named(map, "[vdso]") || layout_is_sysv(map))
		return LAYOUT_COPY;
	if (!file || file->is_memory) {
		/* What it may never write to, userfaultfd does not take. */
		if (map->shared && !(flags & SMAP_MAYWRITE))
			return LAYOUT_FILE;
		return LAYOUT_CAPTURE;
	}
	return !map->shared && written ? LAYOUT_COPY : LAYOUT_FILE;
}

/* hugetlb memory has a file, be it without a name, which tells also of what is
 * newer than smaps. */
static uint64_t find_page_size(const struct mapped_file *file,
			       const struct smap *smap)
{
	if (file && file->fd < 0 && smap)
		return smap->page_size;
	return file ? file->page_size : PAGE_SIZE;
}

static int decide(struct layout_item *item, const struct target *target,
		  const struct layout_rules *rules, struct mapped_files *files)
{
	const struct proc_map *map = item->map;
	const struct smap *smap =
		smaps_find(rules->smaps, rules->n_smaps, map->range.start);
	unsigned flags = smap ? smap->flags : SMAP_MAYWRITE;
	struct mapped_file *file = NULL;
	bool written;

	if (map->inode) {
		file = mapped_files_get(files, target, map);
		if (!file)
			return -ENOMEM;
		item->file = (size_t)(file - files->files);
	}
	item->page_size = find_page_size(file, smap);
	/* What has changed since may have been written to before. */
	written = !map->inode || map->write || !smap ||
		  smap->range.start != map->range.start ||
		  smap->range.end != map->range.end || smap->anonymous;
	item->held = choose_held(map, rules, file, flags,
				 item->page_size != PAGE_SIZE, written);
	if (!item->held)
		return 0;
	item->how = choose_how(map, file, flags, written);
	if (item->how == LAYOUT_FILE && file->fd < 0) {
		if (!file->left_out)
			log_warning(
				"pid %d: %s cannot be opened and is left out",
				target->pid, map->path);
		file->left_out = true;
		item->how = LAYOUT_NONE;
		item->held = 0;
	}
	if (item->how != LAYOUT_CAPTURE || item->page_size == PAGE_SIZE ||
	    item->page_size == PMD_SIZE)
		return 0;
	log_error("pid %d: the memory at %#" PRIx64 " has pages of %" PRIu64
		  " KiB; only 4 KiB and 2 MiB pages can be dumped",
		  target->pid, map->range.start, item->page_size / KIB);
	return RESULT_UNSUPPORTED;
}

int process_layout_read(struct layout *layout, const struct target *target,
			const struct layout_rules *rules,
			struct mapped_files *files)
{
	int r;

	*layout = (struct layout){};
	r = target_read_maps(target, &layout->maps);
	if (r)
		return r;
	layout->items = calloc(layout->maps.n_maps + 1, sizeof(*layout->items));
	if (!layout->items)
		return -ENOMEM;
	for (size_t i = 0; !r && i < layout->maps.n_maps; i++) {
		layout->items[i].map = &layout->maps.maps[i];
		r = decide(&layout->items[i], target, rules, files);
	}
	return r;
}

void process_layout_deinit(struct layout *layout)
{
	proc_maps_deinit(&layout->maps);
	free(layout->items);
	*layout = (struct layout){};
}
