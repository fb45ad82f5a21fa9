/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Memory that is moved while it is captured (mremap). It keeps its protection,
 * and its numbers in its region; what changes is where it is to be read,
 * released, and found when somebody writes to it. Userfaultfd tells once the
 * move is made. Its caller waits until that is read, but nobody else does, and
 * so others may see the new place before we know it: faults are read before
 * events, and a copy may find nothing, or something else.
 *
 * From a change on until its event has been read the kernel refuses to
 * unprotect anything. So a fault at an address of which nothing is known waits
 * until the kernel does not; and whoever else releases holds the layout, which
 * the fault thread needs to read an event: what is released then is what the
 * index says. Of copies, see copy.c.
 *
 * Events of one thread come in order. Those of two may not: the second one may
 * have moved memory to where the first had moved it from, and be in line
 * before it. Where the place of a move is taken it cannot be told what moved
 * where, unless what moves is captured. And a place that was left is unmapped,
 * of which there is an event, too, maybe late: what it seems to hit is looked
 * up in the page tables.
 *
 * Shared memory that is mapped a second time (an old length of 0, or
 * MREMAP_DONTUNMAP) can be changed unseen through what is not protected. Its
 * caller is most often found before its event is read (discard.c), and all of
 * the file is captured; else the snapshot is given up. That a move leaves
 * nothing behind is known once the event of its unmapping has come: until then
 * it is *owed*.
 */

#include <errno.h>

#include "base/log.h"
#include "base/result.h"
#include "sys/uffd.h"

bool move_find_lost(const struct region *region, struct range range,
		    uint64_t *lost)
{
	struct block block;

	for (uint64_t at = range.start; at < range.end; at = block.range.end) {
		size_t extent = region_extent(region, at);
		uint64_t end;

		block = region_block(region, at);
		end = min_u64(block.range.end, range.end);
		if (!(region->extents[extent] & EXTENT_ARMED) ||
		    bitmap_test(&region->done, block.number) ||
		    !bitmap_count(&region->populated, region_page(region, at),
				  region_page(region, end)))
			continue;
		*lost = at;
		return true;
	}
	return false;
}

/* Whether what is left to capture of `range` has gone: 0, -ENOENT, or -errno.
 * *is_there: some is left, and has not. */
static int check_gone(const struct capture *capture,
		      const struct region *region, struct range range,
		      bool *is_there)
{
	struct region_place place;
	uint64_t lost;
	int r = 0;

	while (!r && move_find_lost(region, range, &lost)) {
		struct range left = { lost,
				      region_block(region, lost).range.end };

		left.end = min_u64(left.end, range.end);
		if (!capture->config.markers)
			return -ENOENT;
		region_find_place(region, left, &place);
		r = region_check_protected(
			region, region->space->desc.pagemap_fd, &place, true);
		*is_there = !r;
		range.start = left.end;
	}
	return r == -ESTALE ? -ENOENT : r;
}

static void pay(struct space *space, struct range range)
{
	struct range_list *owed = &space->owed;

	for (size_t i = 0; i < owed->n; i++)
		if (owed->ranges[i].start == range.start &&
		    owed->ranges[i].end == range.end) {
			owed->ranges[i] = owed->ranges[--owed->n];
			return;
		}
}

int move_unmap(struct capture *capture, struct space *space, struct range range)
{
	uint64_t at = range.start;
	struct region *region;
	bool is_there = false;
	struct range hit;

	pay(space, range);
	uffd_wake(space->desc.uffd, range);
	while ((region = space_next(space, &at, range.end, &hit))) {
		int r = check_gone(capture, region, hit, &is_there);

		if (r)
			return capture_copy_failed(region, hit, r);
		/* It may be there, and be written to. */
		is_there |= alias_is_left(region, hit, false);
		if (is_there)
			return 0;
	}
	return space_forget(space, range);
}

int move_mapped_twice(const struct space *space, uint64_t addr)
{
	log_error(
		"pid %d: shared memory at %#llx was mapped a second time before it was captured (mremap); the snapshot is discarded",
		space->desc.pid, (unsigned long long)addr);
	return RESULT_INCONSISTENT;
}

static bool is_left_of_file(struct space *space, uint64_t addr)
{
	uint64_t at = addr;
	struct range hit;
	struct region *region = space_next(space, &at, addr + 1, &hit);

	return region && region->desc.shared &&
	       alias_is_left(region, hit, true);
}

static bool is_taken(const struct space *space, struct range range)
{
	const struct piece *piece = space_find(space, range.start);

	return piece && piece->range.start < range.end;
}

/* Whether nothing but what is in `piece` is known to be at addresses of it that
 * are `ahead` of it. */
static bool is_same(const struct space *space, const struct piece *piece,
		    struct range hit, uint64_t ahead)
{
	uint64_t at = hit.start + ahead;
	struct region *region;
	struct range home;

	while ((region = space_next(space, &at, hit.end + ahead, &home))) {
		uint64_t start = at - range_len(home) - ahead;

		if (region != piece->region ||
		    home.start != piece->home + (start - piece->range.start))
			return false;
	}
	return true;
}

/* Whether other memory comes to where some was copied that may have been that
 * already. Not what was copied there, has left, and comes back. */
static bool spoils_copies(const struct space *space, struct range from,
			  uint64_t to)
{
	struct range target = { to, to + range_len(from) };

	for (size_t i = 0; i < space->n_unsettled; i++) {
		const struct piece *copied = &space->unsettled[i];
		struct range hit = {
			max_u64(copied->range.start, target.start),
			min_u64(copied->range.end, target.end),
		};

		if (hit.start < hit.end &&
		    !is_same(space, copied, hit, from.start - to))
			return true;
	}
	return false;
}

/* What only guards pages of others is not followed. */
static bool has_guard(const struct space *space, struct range range)
{
	uint64_t at = range.start;
	struct region *region;
	struct range hit;

	while ((region = space_next(space, &at, range.end, &hit)))
		if (region->desc.guard)
			return true;
	return false;
}

static int guard_moved(const struct space *space, uint64_t addr)
{
	log_error(
		"pid %d: the memory that it shares, at %#llx, was moved (mremap) before all was captured; the snapshot is discarded",
		space->desc.pid, (unsigned long long)addr);
	return RESULT_INCONSISTENT;
}

/* Whether some of `range` is yet to be captured, where it is or where else it
 * is mapped; with `shared`, of shared memory. */
static bool has_left(const struct space *space, struct range range, bool shared)
{
	uint64_t at = range.start, ignored;
	struct region *region;
	struct range hit;

	while ((region = space_next(space, &at, range.end, &hit)))
		if ((region->desc.shared || !shared) &&
		    (move_find_lost(region, hit, &ignored) ||
		     alias_is_left(region, hit, false)))
			return true;
	return false;
}

/* What moves there is captured. Of what is there nothing is copied until all
 * that has changed is known: it has left. */
static int pass_over(struct space *space, struct range from,
		     struct range target)
{
	int r = range_list_add(&space->passed, target);

	return r ? r : space_forget(space, from);
}

static int cannot_tell(const struct space *space, uint64_t to)
{
	log_error(
		"pid %d: memory was moved (mremap), some of it to %#llx, before it was captured, and what came first cannot be told; the snapshot is discarded",
		space->desc.pid, (unsigned long long)to);
	return RESULT_INCONSISTENT;
}

static int follow(struct space *space, struct range from, uint64_t to)
{
	struct range target = { to, to + range_len(from) };
	int r;

	if (spoils_copies(space, from, to))
		return cannot_tell(space, to);
	if (is_taken(space, target))
		return has_left(space, from, false)
			       ? cannot_tell(space, to)
			       : pass_over(space, from, target);
	/* Shared memory is owed the end of its old mapping. */
	r = has_left(space, from, true) ? range_list_add(&space->owed, from)
					: 0;
	return r ? r : space_move(space, from, to);
}

int move_follow(struct capture *capture, struct space *space, struct range from,
		uint64_t to)
{
	int r;

	/* Who waits where it was is woken by nothing else. */
	uffd_wake(space->desc.uffd, from);
	if (from.start == from.end)
		return is_left_of_file(space, from.start)
			       ? move_mapped_twice(space, from.start)
			       : 0;
	if (has_guard(space, from))
		return guard_moved(space, from.start);
	if (!capture->config.markers)
		return move_unmap(capture, space, from);
	pthread_mutex_lock(&capture->settle_lock);
	r = follow(space, from, to);
	pthread_mutex_unlock(&capture->settle_lock);
	return r;
}
