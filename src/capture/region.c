/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "sys/pagemap.h"
#include "sys/vmio.h"

static struct region_parts *new_parts(size_t n)
{
	struct region_parts *parts =
		calloc(1, sizeof(*parts) + n * sizeof(*parts->part));

	if (parts)
		parts->n = n;
	return parts;
}

static int init_parts(struct region *region)
{
	struct region_parts *parts = new_parts(1);

	if (!parts)
		return -ENOMEM;
	parts->part[0].range = region->desc.range;
	parts->part[0].addr = region->desc.range.start;
	region->parts = parts;
	return 0;
}

/* The first part that ends behind `addr`, or n. */
static size_t find_part(const struct region_parts *parts, uint64_t addr)
{
	size_t low = 0, high = parts->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (parts->part[mid].range.end <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

bool region_next_part(const struct region *region, struct range *rest,
		      struct region_part *part)
{
	const struct region_parts *parts = region->parts;
	size_t i = find_part(parts, rest->start);
	uint64_t start;

	if (i == parts->n || parts->part[i].range.start >= rest->end ||
	    rest->start >= rest->end)
		return false;
	*part = parts->part[i];
	start = max_u64(part->range.start, rest->start);
	part->addr += start - part->range.start;
	part->range.start = start;
	part->range.end = min_u64(part->range.end, rest->end);
	rest->start = part->range.end;
	return true;
}

/* The piece of `part` that is in `range`, or makes the last one longer. */
static void append_part(struct region_parts *parts, struct region_part part,
			struct range range)
{
	struct region_part *last = parts->n ? &parts->part[parts->n - 1] : NULL;

	range.start = max_u64(range.start, part.range.start);
	range.end = min_u64(range.end, part.range.end);
	if (range.start >= range.end)
		return;
	part.addr += range.start - part.range.start;
	part.range = range;
	if (last && last->range.end == range.start &&
	    last->addr + range_len(last->range) == part.addr)
		last->range.end = range.end;
	else
		parts->part[parts->n++] = part;
}

/* Without `range`, but for what `instead` has of it, which may be NULL. */
static int replace_parts(struct region *region, struct range range,
			 const struct region_part *instead)
{
	struct region_parts *old = region->parts;
	struct region_parts *parts = new_parts(old->n + 2);
	size_t i;

	if (!parts)
		return -ENOMEM;
	parts->n = 0;
	for (i = 0; i < old->n && old->part[i].range.start < range.start; i++)
		append_part(parts, old->part[i],
			    (struct range){ 0, range.start });
	if (instead)
		append_part(parts, *instead, range);
	for (i = find_part(old, range.end); i < old->n; i++)
		append_part(parts, old->part[i],
			    (struct range){ range.end, UINT64_MAX });
	free(old);
	region->parts = parts;
	return 0;
}

int region_cut(struct region *region, struct range range)
{
	return replace_parts(region, range, NULL);
}

int region_move(struct region *region, struct range range, uint64_t addr)
{
	struct region_part part = { range, addr };

	return replace_parts(region, range, &part);
}

void region_find_place(const struct region *region, struct range range,
		       struct region_place *place)
{
	place->n = 0;
	while (place->n < PMD_PAGES &&
	       region_next_part(region, &range, &place->part[place->n]))
		place->n++;
}

int region_init(struct region *region, const struct region_desc *desc,
		uint64_t granule_bytes, int hole_fd)
{
	uint64_t n_pages = range_len(desc->range) / PAGE_SIZE;
	uint64_t n_blocks;
	int r;

	*region = (struct region){
		.desc = *desc,
		.base = ROUND_DOWN(desc->range.start, PMD_SIZE),
		.granule = (unsigned)(granule_bytes / PAGE_SIZE),
	};
	region->n_extents =
		(size_t)((ROUND_UP(desc->range.end, PMD_SIZE) - region->base) /
			 PMD_SIZE);
	n_blocks = region->n_extents * (PMD_PAGES / region->granule);

	region->extents = calloc(region->n_extents, 1);
	r = region->extents ? 0 : -ENOMEM;
	if (!r)
		r = bitmap_init(&region->populated, n_pages);
	if (!r)
		r = bitmap_init(&region->noted, n_pages);
	if (!r)
		r = bitmap_init(&region->removed, n_pages);
	if (!r)
		r = bitmap_init(&region->todo, n_blocks);
	if (!r)
		r = bitmap_init(&region->done, n_blocks);
	if (!r)
		r = bitmap_init(&region->wanted, n_blocks);
	if (!r)
		r = init_parts(region);
	if (!r)
		r = file_init(region, hole_fd);
	if (!r)
		r = own_init(region);
	if (r)
		region_deinit(region);
	return r;
}

void region_deinit(struct region *region)
{
	file_deinit(region);
	own_deinit(region);
	free(region->parts);
	free(region->extents);
	bitmap_deinit(&region->populated);
	bitmap_deinit(&region->noted);
	bitmap_deinit(&region->removed);
	bitmap_deinit(&region->todo);
	bitmap_deinit(&region->done);
	bitmap_deinit(&region->wanted);
	*region = (struct region){};
}

struct range region_extent_range(const struct region *region, size_t extent)
{
	uint64_t start = region->base + extent * PMD_SIZE;

	return (struct range){
		max_u64(start, region->desc.range.start),
		min_u64(start + PMD_SIZE, region->desc.range.end),
	};
}

struct block region_block(const struct region *region, uint64_t addr)
{
	size_t extent = region_extent(region, addr);
	uint64_t granule_bytes = region->granule * PAGE_SIZE;
	struct block block = {
		.number = extent * (PMD_PAGES / region->granule),
		.range = region_extent_range(region, extent),
	};
	uint64_t start;

	if (region->extents[extent] & EXTENT_HUGE)
		return block;

	start = ROUND_DOWN(addr, granule_bytes);
	block.number = (start - region->base) / granule_bytes;
	block.range.start = max_u64(start, block.range.start);
	block.range.end = min_u64(start + granule_bytes, block.range.end);
	return block;
}

struct find_arg {
	struct region *region;
	bool markers;
};

static int mark_populated(struct range run, unsigned flags, void *data)
{
	struct find_arg *arg = data;
	struct region *region = arg->region;

	if (arg->markers && !(flags & PAGEMAP_PRESENT))
		return 0;
	/* The kernel answers for what was asked; do not rely on it. */
	run.start = max_u64(run.start, region->desc.range.start);
	run.end = min_u64(run.end, region->desc.range.end);
	if (run.start >= run.end)
		return 0;

	bitmap_set_range(&region->populated, region_page(region, run.start),
			 region_page(region, run.end));
	for (size_t i = region_extent(region, run.start);
	     i <= region_extent(region, run.end - 1); i++) {
		/* Once armed, an extent's division into blocks is fixed. */
		if (region->extents[i] & EXTENT_ARMED)
			continue;
		if (flags & PAGEMAP_HUGE)
			region->extents[i] |= EXTENT_HUGE;
	}
	return 0;
}

int region_find_populated(struct region *region, int pagemap_fd,
			  struct range range, bool markers)
{
	struct find_arg arg = { region, markers };
	struct region_part part;
	int r;

	while (region_next_part(region, &range, &part)) {
		if (!region_is_file(region)) {
			r = pagemap_walk(pagemap_fd, part.range, mark_populated,
					 &arg);
			if (r)
				return r;
		}
		if (region_has_file(region))
			file_find_populated(region, part.range);
		r = own_find(region, part.range);
		if (r)
			return r;
	}
	return 0;
}

struct check_arg {
	const struct region *region;
	const struct region_part *part;
	uint64_t n_populated;
};

static int count_populated(struct range run, unsigned flags, void *data)
{
	struct check_arg *arg = data;
	uint64_t home = arg->part->range.start - arg->part->addr;

	(void)flags;
	arg->n_populated +=
		bitmap_count(&arg->region->populated,
			     region_page(arg->region, run.start + home),
			     region_page(arg->region, run.end + home));
	return 0;
}

static int check_part(struct check_arg *arg, int pagemap_fd, bool all)
{
	const struct region_part *part = arg->part;
	struct range at = { part->addr, part->addr + range_len(part->range) };
	uint64_t n_wanted = 0;
	int r;

	arg->n_populated = 0;
	if (all) {
		n_wanted = bitmap_count(
			&arg->region->populated,
			region_page(arg->region, part->range.start),
			region_page(arg->region, part->range.end));
		r = pagemap_walk_protected(pagemap_fd, at, count_populated,
					   arg);
	} else {
		r = pagemap_walk_unprotected(pagemap_fd, at, count_populated,
					     arg);
	}
	if (r)
		return r;
	return arg->n_populated == n_wanted ? 0 : -ESTALE;
}

int region_check_protected(const struct region *region, int pagemap_fd,
			   const struct region_place *place, bool all)
{
	int r = 0;

	for (size_t i = 0; !r && i < place->n; i++) {
		struct check_arg arg = { .region = region,
					 .part = &place->part[i] };

		r = check_part(&arg, pagemap_fd, all);
	}
	return r;
}

void region_add_remote(const struct region_place *place, size_t *i,
		       struct range run, struct range *remote, size_t *n)
{
	for (; *i < place->n && place->part[*i].range.start < run.end; ++*i) {
		const struct region_part *part = &place->part[*i];
		uint64_t start = max_u64(run.start, part->range.start);
		uint64_t end = min_u64(run.end, part->range.end);
		uint64_t to_addr = part->addr - part->range.start;

		if (start < end)
			remote[(*n)++] = (struct range){ start + to_addr,
							 end + to_addr };
		if (part->range.end > run.end)
			break;
	}
}

int region_read(const struct region *region, const struct range *remote,
		size_t n, uint8_t *to)
{
	const struct capture_space *space = &region->space->desc;
	size_t n_read;
	int r = vm_read_ranges(space->pid, remote, n, to, &n_read);

	/* Not readable, or not there. */
	if (r == -EFAULT && space->mem_fd >= 0)
		r = vm_read_ranges_forced(space->mem_fd, remote, n, to);
	return r == -EFAULT ? -ENOENT : r;
}

/* The segments of what is copied of `range` to the slab's end. */
static size_t add_segments(const struct region *region, struct range range,
			   struct slab *slab)
{
	uint64_t end = region_page(region, range.end);
	uint64_t page = region_page(region, range.start), next;
	size_t n = 0;

	while ((page = bitmap_find_set(&region->populated, page, end)) < end) {
		next = bitmap_find_clear(&region->populated, page, end);
		slab->segments[slab->n_segments++] =
			(struct segment){ region->number, page, next - page };
		n += next - page;
		page = next;
	}
	return n * PAGE_SIZE;
}

/* All segments from *segment on. */
static int copy_runs(const struct region *region,
		     const struct region_place *place,
		     const struct segment *segment, const struct segment *end,
		     uint8_t *to)
{
	struct range remote[PMD_PAGES];
	size_t n = 0, i = 0;
	int r = 0;

	for (; !r && segment < end; segment++) {
		struct range run = {
			region_addr(region, segment->first),
			region_addr(region, segment->first + segment->n),
		};

		if (!region_is_file(region)) {
			region_add_remote(place, &i, run, remote, &n);
			continue;
		}
		r = file_copy(region, run, to);
		to += range_len(run);
	}
	return n ? region_read(region, remote, n, to) : r;
}

int region_copy(const struct region *region, struct range range,
		const struct region_place *place, struct slab *slab)
{
	const struct segment *first = slab->segments + slab->n_segments;
	size_t len = add_segments(region, range, slab);
	uint8_t *to = slab->data + slab->used;
	int r;

	if (region_has_file(region) && !region->desc.shared)
		r = file_copy_private(region, range, place, to);
	else
		r = copy_runs(region, place, first,
			      slab->segments + slab->n_segments, to);
	if (!r)
		slab->used += len;
	return r;
}
