/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Memory that is a file, and holes that are punched into it (fallocate(2) by a
 * balloon, free-page reporting, virtio-mem): they take away what was there, and
 * most often no userfaultfd tells. A copy that got zeros for it would look like
 * any other. So files are read through a mapping that tells holes, filemap.h:
 * a page of which it is known that the file had it at the instant is copied, or
 * found to be lost. A page that the file did not have is not copied at all. It
 * may come to be there only by a write, which waits; also a write to where a
 * hole was punched does, for that leaves the protection.
 *
 * A private mapping shows its own pages where it has been written to, and those
 * of the file elsewhere. The former are read like anonymous memory: who
 * discards them makes an event. The latter are read from the file. Which is
 * which the page tables tell, but for a page that is not present: it may be in
 * swap, or be moved by the kernel; or it is the file's, and what shows is a
 * marker of its protection. That is told by touching it, which fills a hole of
 * the file: so the file is read first.
 */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "sys/pagemap.h"
#include "sys/uffd.h"

#define SHORT_RANGE PMD_SIZE

/* How often to look for pages that were swapped out again. */
#define MAX_TOUCHES 100

int file_init(struct region *region, int hole_fd)
{
	const struct region_desc *desc = &region->desc;
	int r;

	if (!region_has_file(region))
		return 0;
	r = filemap_init(&region->filemap, hole_fd, desc->fd, desc->fd_offset,
			 range_len(desc->range), desc->page_size);
	/* No memory: it cannot be protected either, as arming it will tell. */
	if (r == -EINVAL)
		r = 0;
	if (!r && !desc->shared)
		r = bitmap_init(&region->backed, region_n_pages(region));
	return r;
}

void file_deinit(struct region *region)
{
	filemap_deinit(&region->filemap);
	bitmap_deinit(&region->backed);
}

static size_t to_map(const struct region *region, uint64_t addr)
{
	return addr - region->desc.range.start;
}

static void mark(struct region *region, uint64_t start, uint64_t end)
{
	uint64_t first = region_page(region, start);
	uint64_t last = region_page(region, end);

	bitmap_set_range(&region->populated, first, last);
	if (!region->desc.shared)
		bitmap_set_range(&region->backed, first, last);
}

/* Where what begins at `data` ends, or -1. To find the next hole the kernel
 * looks at all pages before it, however far that is: of a short range each is
 * looked at by itself. */
static off_t find_hole(int fd, off_t data, uint64_t len)
{
	return len <= SHORT_RANGE ? data + (off_t)PAGE_SIZE
				  : lseek(fd, data, SEEK_HOLE);
}

static void mark_data(struct region *region, struct range range)
{
	const struct region_desc *desc = &region->desc;
	uint64_t to_file = desc->fd_offset - desc->range.start;
	uint64_t at = range.start;

	while (at < range.end) {
		off_t data = lseek(desc->fd, (off_t)(at + to_file), SEEK_DATA);
		off_t hole;

		if (data < 0 && errno == ENXIO)
			return;
		hole = data < 0 ? -1
				: find_hole(desc->fd, data, range.end - at);
		if (hole <= data) {
			/* Cannot tell: read all of it. */
			data = (off_t)(at + to_file);
			hole = (off_t)(range.end + to_file);
		}
		if ((uint64_t)data - to_file >= range.end)
			return;
		at = ROUND_UP((uint64_t)hole - to_file, PAGE_SIZE);
		mark(region, (uint64_t)data - to_file, min_u64(at, range.end));
	}
}

/* hugetlbfs has no SEEK_DATA; but its pages are few. */
static void mark_huge_pages(struct region *region, struct range range)
{
	uint64_t start = ROUND_DOWN(range.start, PMD_SIZE);

	for (uint64_t at = start; at < range.end; at += PMD_SIZE)
		if (filemap_hold(&region->filemap, to_map(region, at)))
			mark(region, max_u64(at, range.start),
			     min_u64(at + PMD_SIZE, range.end));
}

void file_find_populated(struct region *region, struct range range)
{
	if (!region->desc.shared)
		bitmap_clear_range(&region->backed,
				   region_page(region, range.start),
				   region_page(region, range.end));
	if (!region->filemap.at)
		mark(region, range.start, range.end);
	else if (region_is_hugetlb(region))
		mark_huge_pages(region, range);
	else
		mark_data(region, range);
}

int file_copy(const struct region *region, struct range run, uint8_t *to)
{
	return region->filemap.at ? filemap_read(&region->filemap,
						 to_map(region, run.start), to,
						 range_len(run))
				  : -EINVAL;
}

/* Whose a page is that a private mapping shows. */
enum owner {
	OWNER_FILE,
	OWNER_UNKNOWN,
	OWNER_PROCESS,
};

/* The populated pages of a range, as they are copied: one behind another. */
struct pages {
	const struct region *region;
	const struct region_place *place;
	uint8_t *to;
	size_t n;
	uint64_t page[PMD_PAGES]; /* of the region */
	uint8_t owner[PMD_PAGES];
	bool is_hole[PMD_PAGES]; /* of the file */
};

static void list_pages(struct pages *pages, struct range range)
{
	const struct region *region = pages->region;
	uint64_t page = region_page(region, range.start);
	uint64_t end = region_page(region, range.end);

	while (pages->n < PMD_PAGES &&
	       (page = bitmap_find_set(&region->populated, page, end)) < end)
		pages->page[pages->n++] = page++;
}

struct owner_arg {
	struct pages *pages;
	const struct region_part *part;
};

static int set_owner(struct range run, unsigned flags, void *data)
{
	const struct owner_arg *arg = data;
	struct pages *pages = arg->pages;
	uint64_t home = arg->part->range.start - arg->part->addr;
	uint64_t first = region_page(pages->region, run.start + home);
	uint64_t end = region_page(pages->region, run.end + home);
	uint8_t owner = flags & PAGEMAP_PRESENT ? OWNER_PROCESS : OWNER_UNKNOWN;

	for (size_t i = 0; i < pages->n; i++)
		if (pages->page[i] >= first && pages->page[i] < end &&
		    pages->owner[i] < owner)
			pages->owner[i] = owner;
	return 0;
}

/* Once it is known to be the process's, it stays so, unless there is an event
 * of its end. */
static int find_owners(struct pages *pages)
{
	int r = 0;

	for (size_t i = 0; i < pages->n; i++)
		if (pages->owner[i] == OWNER_UNKNOWN)
			pages->owner[i] = OWNER_FILE;
	for (size_t i = 0; !r && i < pages->place->n; i++) {
		struct owner_arg arg = { pages, &pages->place->part[i] };
		uint64_t at = arg.part->addr;

		r = pagemap_walk_own(
			pages->region->space->desc.pagemap_fd,
			(struct range){ at, at + range_len(arg.part->range) },
			set_owner, &arg);
	}
	return r;
}

/* The first page from `i` on that the process does not own for sure, and how
 * many follow that continue it. */
static size_t next_of_file(const struct pages *pages, size_t *i)
{
	size_t n = 0;

	while (*i < pages->n && pages->owner[*i] == OWNER_PROCESS)
		++*i;
	while (*i + n < pages->n && pages->owner[*i + n] != OWNER_PROCESS &&
	       pages->page[*i + n] == pages->page[*i] + n)
		n++;
	return n;
}

static void read_file(struct pages *pages)
{
	const struct filemap *map = &pages->region->filemap;
	size_t n;

	for (size_t i = 0; (n = next_of_file(pages, &i)); i += n) {
		size_t at = pages->page[i] * PAGE_SIZE;
		uint8_t *to = pages->to + i * PAGE_SIZE;

		if (filemap_read(map, at, to, n * PAGE_SIZE))
			for (size_t k = 0; k < n; k++)
				pages->is_hole[i + k] = filemap_read(
					map, at + k * PAGE_SIZE,
					to + k * PAGE_SIZE, PAGE_SIZE);
	}
}

/* Reads `len` bytes of each of these pages. */
static int read_target(const struct pages *pages, enum owner owner, size_t len,
		       uint8_t *to)
{
	struct range remote[PMD_PAGES];
	size_t n = 0, part = 0, n_before;

	for (size_t i = 0; i < pages->n; i++) {
		uint64_t addr = region_addr(pages->region, pages->page[i]);

		n_before = n;
		if (pages->owner[i] == owner)
			region_add_remote(
				pages->place, &part,
				(struct range){ addr, addr + PAGE_SIZE },
				remote, &n);
		if (n > n_before)
			remote[n_before].end = remote[n_before].start + len;
	}
	return n ? region_read(pages->region, remote, n, to) : 0;
}

/* Has the kernel show whose the others are. */
static int touch(struct pages *pages)
{
	uint8_t bytes[PMD_PAGES];
	int r = 0;

	for (int i = 0; !r && i < MAX_TOUCHES; i++) {
		if (!memchr(pages->owner, OWNER_UNKNOWN, pages->n))
			return 0;
		r = read_target(pages, OWNER_UNKNOWN, 1, bytes);
		if (!r)
			r = find_owners(pages);
	}
	return r ? r : -ESTALE;
}

/* Where it belongs, what the process owns. */
static int read_own(struct pages *pages)
{
	struct range remote[PMD_PAGES];
	size_t i = 0, part = 0, n, first;
	int r = 0;

	while (!r && i < pages->n) {
		for (first = i, n = 0;
		     i < pages->n && pages->owner[i] == OWNER_PROCESS; i++) {
			uint64_t addr =
				region_addr(pages->region, pages->page[i]);

			region_add_remote(
				pages->place, &part,
				(struct range){ addr, addr + PAGE_SIZE },
				remote, &n);
		}
		if (n)
			r = region_read(pages->region, remote, n,
					pages->to + first * PAGE_SIZE);
		else
			i++;
	}
	return r;
}

/* 0 or -ENOENT. */
static int judge_holes(const struct pages *pages)
{
	const struct region *region = pages->region;

	for (size_t i = 0; i < pages->n; i++) {
		if (pages->owner[i] == OWNER_PROCESS || !pages->is_hole[i])
			continue;
		if (bitmap_test(&region->backed, pages->page[i]))
			return -ENOENT;
		memset(pages->to + i * PAGE_SIZE, 0, PAGE_SIZE);
	}
	return 0;
}

/* Of small pages the mapping's own stay where a hole is punched, or an event
 * tells. */
static int judge_own(const struct pages *pages)
{
	const struct region *region = pages->region;
	struct region_part part;

	if (!pages->n || !pages->place->n)
		return 0;
	part = pages->place->part[0];
	part.range.end = part.range.start + pages->n * PAGE_SIZE;
	return own_check(region, part, pages->owner[0] == OWNER_PROCESS,
			 bitmap_test(&region->backed, pages->page[0]),
			 pages->to);
}

int file_copy_private(const struct region *region, struct range range,
		      const struct region_place *place, uint8_t *to)
{
	struct pages pages = { .region = region, .place = place, .to = to };
	int r;

	if (!region->filemap.at)
		return -EINVAL;
	list_pages(&pages, range);
	r = find_owners(&pages);
	if (r)
		return r;
	read_file(&pages);
	r = touch(&pages);
	if (!r)
		r = read_own(&pages);
	if (!r)
		r = judge_holes(&pages);
	return r ? r : judge_own(&pages);
}
