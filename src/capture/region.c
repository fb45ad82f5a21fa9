/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "sys/mapcopy.h"
#include "sys/pagemap.h"
#include "sys/vmio.h"

/* Reading from a mapping is up to twice as fast as read(2). Where it fails
 * (say, for want of huge pages to reserve), read(2) does. */
static int map_shared(struct region *region)
{
	const struct region_desc *desc = &region->desc;
	int r;

	if (desc->fd < 0 || !desc->shared || desc->may_be_punched)
		return 0;
	r = mapcopy_install();
	if (r)
		return r;
	region->mapping = mmap(NULL, range_len(desc->range), PROT_READ,
			       MAP_SHARED | MAP_NORESERVE, desc->fd,
			       (off_t)desc->fd_offset);
	if (region->mapping == MAP_FAILED)
		region->mapping = NULL;
	return 0;
}

static void unmap_shared(struct region *region)
{
	if (region->mapping)
		munmap(region->mapping, range_len(region->desc.range));
	region->mapping = NULL;
}

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
		uint64_t granule_bytes)
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
		r = map_shared(region);
	if (r)
		region_deinit(region);
	return r;
}

void region_deinit(struct region *region)
{
	unmap_shared(region);
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

static void mark_file_data(struct region *region, struct range range)
{
	const struct region_desc *desc = &region->desc;
	uint64_t to_file = desc->fd_offset - desc->range.start;
	uint64_t at = range.start;

	while (at < range.end) {
		off_t data = lseek(desc->fd, (off_t)(at + to_file), SEEK_DATA);
		off_t hole;

		if (data < 0 && errno == ENXIO)
			return;
		hole = data < 0 ? -1 : lseek(desc->fd, data, SEEK_HOLE);
		if (hole <= data) {
			/* Cannot tell: read all of it. */
			data = (off_t)(at + to_file);
			hole = (off_t)(range.end + to_file);
		}
		if ((uint64_t)data - to_file >= range.end)
			return;
		bitmap_set_range(
			&region->populated,
			region_page(region, (uint64_t)data - to_file),
			region_page(region,
				    min_u64(ROUND_UP((uint64_t)hole - to_file,
						     PAGE_SIZE),
					    range.end)));
		at = ROUND_UP((uint64_t)hole - to_file, PAGE_SIZE);
	}
}

/* hugetlbfs knows no holes, but how much is allocated: unless the page tables
 * show just that, any page may exist. */
static void mark_hugetlb_file(struct region *region)
{
	uint64_t n_pages = region_n_pages(region);
	uint64_t mapped = bitmap_count(&region->populated, 0, n_pages);
	struct range all = region->desc.range;
	struct region_part part;
	struct stat st;

	if (!fstat(region->desc.fd, &st) &&
	    (uint64_t)st.st_blocks * 512 ==
		    (region->desc.shared ? mapped * PAGE_SIZE : 0))
		return;
	while (region_next_part(region, &all, &part))
		bitmap_set_range(&region->populated,
				 region_page(region, part.range.start),
				 region_page(region, part.range.end));
	/* A read of a hole through the mapping would allocate a page. */
	unmap_shared(region);
}

int region_find_populated(struct region *region, int pagemap_fd,
			  struct range range, bool markers)
{
	struct find_arg arg = { region, markers };
	bool hugetlb = region_is_hugetlb(region);
	struct region_part part;
	int r;

	while (region_next_part(region, &range, &part)) {
		if (region->desc.fd < 0 || !region->desc.shared || hugetlb) {
			r = pagemap_walk(pagemap_fd, part.range, mark_populated,
					 &arg);
			if (r)
				return r;
		}
		if (region->desc.fd >= 0 && !hugetlb)
			mark_file_data(region, part.range);
	}
	if (region->desc.fd >= 0 && hugetlb)
		mark_hugetlb_file(region);
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

static int copy_from_mapping(const struct region *region, struct range run,
			     uint8_t *to)
{
	uint8_t *from =
		region->mapping + (run.start - region->desc.range.start);
	size_t len = range_len(run);
	int r;

	/* All page-table entries at once, instead of a fault for each few. */
	madvise(from, len, MADV_POPULATE_READ);
	r = mapcopy(to, from, len);
	/* They count as our memory while they are mapped. */
	madvise(from, len, MADV_DONTNEED);
	return r;
}

/*
 * Holes punched into a file (fallocate(2), a balloon's way to give pages back)
 * take away what was there, and no userfaultfd tells. Looked for after the
 * copy, which then may have got zeros. hugetlbfs cannot tell.
 */
static int check_no_hole(const struct region *region, struct range run)
{
	uint64_t to_file = region->desc.fd_offset - region->desc.range.start;
	off_t hole;

	if (region_is_hugetlb(region))
		return 0;
	hole = lseek(region->desc.fd, (off_t)(run.start + to_file), SEEK_HOLE);
	return hole >= 0 && (uint64_t)hole < run.end + to_file ? -ENOENT : 0;
}

static int copy_from_file(const struct region *region, struct range run,
			  uint8_t *to)
{
	int r;

	if (region->mapping)
		r = copy_from_mapping(region, run, to);
	else
		r = io_pread_full(region->desc.fd, to, range_len(run),
				  region->desc.fd_offset + run.start -
					  region->desc.range.start);
	if (!r && region->desc.may_be_punched)
		r = check_no_hole(region, run);
	/* The file was truncated. */
	return r == -ENODATA || r == -EFAULT ? -ENOENT : r;
}

/* The addresses of `run`, which is in or behind part *i of the place. */
static void add_remote(const struct region_place *place, size_t *i,
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

int region_copy(const struct region *region, struct range range,
		const struct region_place *place, struct slab *slab)
{
	uint64_t end = region_page(region, range.end);
	uint64_t page = region_page(region, range.start);
	struct range remote[PMD_PAGES];
	uint8_t *to = slab->data + slab->used;
	size_t n = 0, len = 0, i = 0, n_read;
	int r = 0;

	while ((page = bitmap_find_set(&region->populated, page, end)) < end) {
		uint64_t next =
			bitmap_find_clear(&region->populated, page, end);
		struct range run = { region_addr(region, page),
				     region_addr(region, next) };

		slab->segments[slab->n_segments++] =
			(struct segment){ region->number, page, next - page };
		if (region->desc.fd >= 0 && region->desc.shared)
			r = copy_from_file(region, run, to + len);
		else
			add_remote(place, &i, run, remote, &n);
		if (r)
			return r;
		len += range_len(run);
		page = next;
	}

	if (n) {
		r = vm_read_ranges(region->space->desc.pid, remote, n, to,
				   &n_read);
		/* Not readable, or not there. */
		if (r == -EFAULT && region->space->desc.mem_fd >= 0)
			r = vm_read_ranges_forced(region->space->desc.mem_fd,
						  remote, n, to);
		if (r)
			return r == -EFAULT ? -ENOENT : r;
	}
	slab->used += len;
	return 0;
}
