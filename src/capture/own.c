/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Huge pages that a private mapping of a file has of its own. Other than of
 * small pages, who punches a hole into the file takes these away, too:
 * hugetlbfs unmaps whatever covers the hole (fs/hugetlbfs/inode.c). No event
 * tells of it, protection stays behind, and the next read puts a page of zeros
 * there, the mapping's own again.
 *
 * So of each such page it is known at the instant that it is there, and whether
 * all of it is zero. What comes in place of it can be a page of zeros, or one
 * of the file, and nothing else before a write, which waits for us. Hence a
 * copy is right when there is something in it and that is in its place after
 * the copy, in a page that is still the mapping's own. Zeros are right where
 * there were zeros.
 *
 * That a page had been the file's, and there is one of the mapping's own
 * unwritten, means that a hole was punched and read.
 */

#include <errno.h>
#include <string.h>

#include "sys/pagemap.h"

#define PIECE PAGE_SIZE

bool own_is_watched(const struct region *region)
{
	return region_has_file(region) && !region->desc.shared &&
	       region_is_hugetlb(region);
}

int own_init(struct region *region)
{
	int r = 0;

	if (!own_is_watched(region))
		return 0;
	r = bitmap_init(&region->own, region->n_extents);
	return r ? r : bitmap_init(&region->filled, region->n_extents);
}

void own_deinit(struct region *region)
{
	bitmap_deinit(&region->own);
	bitmap_deinit(&region->filled);
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return !len || (!*bytes && !memcmp(bytes, bytes + 1, len - 1));
}

static int set_present(struct range run, unsigned flags, void *data)
{
	(void)run;
	*(bool *)data |= !!(flags & PAGEMAP_PRESENT);
	return 0;
}

/* Whether what is mapped there is the mapping's own. */
static int is_own(const struct region *region, struct range at, bool *own)
{
	*own = false;
	return pagemap_walk_own(region->space->desc.pagemap_fd, at, set_present,
				own);
}

/* Most pages that hold something do so at their beginning. */
static int is_filled(const struct region *region, struct range at, bool *filled)
{
	uint8_t piece[PIECE];

	*filled = false;
	while (!*filled && at.start < at.end) {
		struct range part = {
			at.start,
			min_u64(at.end, at.start + sizeof(piece)),
		};
		int r = region_read(region, &part, 1, piece);

		/* It may have gone: what is missed there is a loss. */
		if (r == -ENOENT)
			*filled = true;
		else if (r)
			return r;
		else
			*filled = !is_zero(piece, range_len(part));
		at.start = part.end;
	}
	return 0;
}

int own_find(struct region *region, struct range range)
{
	uint64_t start = ROUND_DOWN(range.start, PMD_SIZE);
	bool own, filled = false;
	int r = 0;

	if (!own_is_watched(region))
		return 0;
	for (uint64_t at = start; !r && at < range.end; at += PMD_SIZE) {
		size_t i = region_extent(region, at);
		struct range page = region_extent_range(region, i);

		r = is_own(region, page, &own);
		if (!r && own)
			r = is_filled(region, page, &filled);
		if (r)
			return r;
		bitmap_clear_range(&region->own, i, i + 1);
		bitmap_clear_range(&region->filled, i, i + 1);
		if (own)
			bitmap_test_and_set(&region->own, i);
		if (own && filled)
			bitmap_test_and_set(&region->filled, i);
	}
	return 0;
}

/* Whether what was copied from `at` on is there still. */
static int look_again(const struct region *region, struct range at,
		      const uint8_t *copy)
{
	uint8_t piece[PIECE];
	bool own;
	int r = region_read(region, &at, 1, piece);

	if (!r && memcmp(piece, copy, range_len(at)))
		r = -ENOENT;
	if (!r)
		r = is_own(region, at, &own);
	return r ? r : own ? 0 : -ENOENT;
}

int own_check(const struct region *region, struct region_part part, bool own,
	      bool backed, const uint8_t *copy)
{
	size_t i = region_extent(region, part.range.start);
	size_t len = range_len(part.range);

	if (!own_is_watched(region))
		return 0;
	if (own ? backed && !bitmap_test(&region->own, i)
		: bitmap_test(&region->own, i))
		return -ENOENT;
	if (!own)
		return 0;
	for (size_t at = 0; at < len; at += PIECE)
		if (!is_zero(copy + at, PIECE))
			return look_again(region,
					  (struct range){
						  part.addr + at,
						  part.addr + at + PIECE,
					  },
					  copy + at);
	return bitmap_test(&region->filled, i) ? -ENOENT : 0;
}
