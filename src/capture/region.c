/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/region.h"

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

	if (desc->fd < 0 || !desc->shared)
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
		r = map_shared(region);
	if (r)
		region_deinit(region);
	return r;
}

void region_deinit(struct region *region)
{
	unmap_shared(region);
	free(region->extents);
	bitmap_deinit(&region->populated);
	bitmap_deinit(&region->noted);
	bitmap_deinit(&region->removed);
	bitmap_deinit(&region->todo);
	bitmap_deinit(&region->done);
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
	struct stat st;

	if (!fstat(region->desc.fd, &st) &&
	    (uint64_t)st.st_blocks * 512 ==
		    (region->desc.shared ? mapped * PAGE_SIZE : 0))
		return;
	bitmap_set_range(&region->populated, 0, n_pages);
	/* A read of a hole through the mapping would allocate a page. */
	unmap_shared(region);
}

int region_find_populated(struct region *region, int pagemap_fd,
			  struct range range, bool markers)
{
	struct find_arg arg = { region, markers };
	bool hugetlb = region_is_hugetlb(region);
	int r;

	if (region->desc.fd < 0 || !region->desc.shared || hugetlb) {
		r = pagemap_walk(pagemap_fd, range, mark_populated, &arg);
		if (r)
			return r;
	}
	if (region->desc.fd >= 0 && hugetlb)
		mark_hugetlb_file(region);
	else if (region->desc.fd >= 0)
		mark_file_data(region, range);
	return 0;
}

static int is_populated(struct range run, unsigned flags, void *data)
{
	const struct region *region = data;
	uint64_t first = region_page(region, run.start);
	uint64_t end = region_page(region, run.end);

	(void)flags;
	return bitmap_find_set(&region->populated, first, end) < end ? -ESTALE
								     : 0;
}

int region_check_protected(const struct region *region, int pagemap_fd,
			   struct range range)
{
	return pagemap_walk_unprotected(pagemap_fd, range, is_populated,
					(void *)region);
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
	/* The file was truncated. */
	return r == -ENODATA || r == -EFAULT ? -ENOENT : r;
}

int region_copy(const struct region *region, unsigned number, pid_t pid,
		struct range range, struct slab *slab)
{
	uint64_t end = region_page(region, range.end);
	uint64_t page = region_page(region, range.start);
	struct range remote[PMD_PAGES / 2 + 1];
	uint8_t *to = slab->data + slab->used;
	size_t n = 0, len = 0, n_read;
	int r = 0;

	while ((page = bitmap_find_set(&region->populated, page, end)) < end) {
		uint64_t next =
			bitmap_find_clear(&region->populated, page, end);
		struct range run = { region_addr(region, page),
				     region_addr(region, next) };

		slab->segments[slab->n_segments++] =
			(struct segment){ number, page, next - page };
		if (region->desc.fd >= 0 && region->desc.shared)
			r = copy_from_file(region, run, to + len);
		else
			remote[n++] = run;
		if (r)
			return r;
		len += range_len(run);
		page = next;
	}

	if (n) {
		r = vm_read_ranges(pid, remote, n, to, &n_read);
		if (r)
			return r == -EFAULT ? -ENOENT : r;
	}
	slab->used += len;
	return 0;
}
