/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Copies of memory that may move meanwhile. Where it is, is looked up before
 * the copy, and whether it was right is known after:
 *
 *   - All pages are protected, and there: so it is memory of ours, as it was at
 *     the instant. Else it has gone, or has moved and the event of that is yet
 *     to be read.
 *   - No move of it was heard of meanwhile.
 *   - The kernel says that no event is yet to be read. Then it was in its place
 *     all the time. If there is one, other memory of ours may have come to
 *     where this was; for that two threads must have moved memory, and the
 *     event of the second is yet to be read. So the copy is *unsettled* until
 *     the kernel has once said that there is none: a move of other memory to
 *     its place before that discards the snapshot.
 *
 * Who has found that its memory is somewhere else looks it up again. The second
 * time it holds the layout while it copies: then no event is read, whoever
 * moves memory waits for that, and nobody moves it again and again.
 *
 * What is read from a file is right wherever the file is mapped.
 */

#include <errno.h>

#include "base/log.h"
#include "base/result.h"
#include "sys/uffd.h"

/* How long all threads together may keep on changing mappings without a moment
 * in which nobody does. */
#define SETTLE_NS 10000000000
/* For how long the fault thread, when it has read all, looks for such a moment;
 * at first without a rest. */
#define TRY_NS	  300000
#define SPIN_NS	  20000

int range_list_add(struct range_list *list, struct range range)
{
	size_t max = list->max * 2 + 16;
	struct range *ranges;

	if (list->n == list->max) {
		ranges = reallocarray(list->ranges, max, sizeof(*ranges));
		if (!ranges)
			return -ENOMEM;
		list->ranges = ranges;
		list->max = max;
	}
	list->ranges[list->n++] = range;
	return 0;
}

static int add_unsettled(struct space *space, struct piece piece)
{
	size_t max = space->max_unsettled * 2 + 64;
	struct piece *pieces;

	if (space->n_unsettled == space->max_unsettled) {
		pieces = reallocarray(space->unsettled, max, sizeof(*pieces));
		if (!pieces)
			return -ENOMEM;
		space->unsettled = pieces;
		space->max_unsettled = max;
	}
	space->unsettled[space->n_unsettled++] = piece;
	return 0;
}

/* What was copied of a part. */
static int set_unsettled(struct region *region, const struct region_part *part)
{
	uint64_t page = region_page(region, part->range.start), next;
	uint64_t end = region_page(region, part->range.end);
	uint64_t to_addr = part->addr - part->range.start;
	int r = 0;

	for (; !r; page = next) {
		page = bitmap_find_set(&region->populated, page, end);
		if (page >= end)
			return 0;
		next = bitmap_find_clear(&region->populated, page, end);
		r = add_unsettled(
			region->space,
			(struct piece){
				{ region_addr(region, page) + to_addr,
				  region_addr(region, next) + to_addr },
				region,
				region_addr(region, page),
			});
	}
	return r;
}

int copy_settle(struct space *space)
{
	space->n_unsettled = 0;
	space->passed.n = 0;
	return space->owed.n
		       ? move_mapped_twice(space, space->owed.ranges[0].start)
		       : 0;
}

/* Whether other memory has come to some of the place. */
static bool is_passed(const struct space *space,
		      const struct region_place *place)
{
	for (size_t i = 0; i < space->passed.n; i++)
		for (size_t k = 0; k < place->n; k++) {
			const struct range *passed = &space->passed.ranges[i];
			const struct region_part *part = &place->part[k];

			if (part->addr < passed->end &&
			    part->addr + range_len(part->range) > passed->start)
				return true;
		}
	return false;
}

/* What to make of a copy that ended with `r`. */
static int judge(struct region *region, const struct region_place *place,
		 uint64_t n_moves, int r)
{
	struct space *space = region->space;

	if (region->n_moves != n_moves)
		return -EAGAIN;
	if (!uffd_is_changing(space->desc.uffd)) {
		int settled = copy_settle(space);

		return r ? r : settled;
	}
	if (r == -ENOENT || r == -ESTALE || is_passed(space, place))
		return -EAGAIN;
	if (region_is_file(region))
		return r;
	for (size_t i = 0; !r && i < place->n; i++)
		r = set_unsettled(region, &place->part[i]);
	return r;
}

static int copy_once(struct capture *capture, struct region *region,
		     struct range range, struct filler *filler)
{
	bool locks = !filler->changes, keeps = locks && filler->insists;
	bool all = capture->config.markers && !region_is_file(region);
	struct slab *slab = filler->slab;
	size_t used = slab->used, n_segments = slab->n_segments;
	struct region_place place;
	uint64_t n_moves;
	int r;

	if (locks)
		pthread_mutex_lock(&capture->layout);
	region_find_place(region, range, &place);
	n_moves = region->n_moves;
	if (locks && !keeps)
		pthread_mutex_unlock(&capture->layout);

	r = region_copy(region, range, &place, slab);
	/* After the copy: what is protected now was so all the time. */
	if (!r)
		r = region_check_protected(
			region, region->space->desc.pagemap_fd, &place, all);

	if (locks && !keeps)
		pthread_mutex_lock(&capture->layout);
	pthread_mutex_lock(&capture->settle_lock);
	r = judge(region, &place, n_moves, r);
	pthread_mutex_unlock(&capture->settle_lock);
	if (locks)
		pthread_mutex_unlock(&capture->layout);
	filler->insists = r == -EAGAIN;
	if (r) {
		slab->used = used;
		slab->n_segments = n_segments;
	}
	return r;
}

int capture_copy(struct capture *capture, struct region *region,
		 struct range range, struct filler *filler)
{
	int r = copy_once(capture, region, range, filler), verdict;

	if (!r)
		return 0;
	/* Where something else has failed, whoever faults is let go at once,
	 * also from what is being copied: that is no second failure. */
	verdict = atomic_load(&capture->verdict);
	if (verdict)
		return verdict;
	return r == -EAGAIN || r > 0 ? r
				     : capture_copy_failed(region, range, r);
}

/* By the fault thread, or under `layout`. Whether all is settled. */
static int settle(struct capture *capture, struct space *space, bool *settled)
{
	int r = 0;

	pthread_mutex_lock(&capture->settle_lock);
	*settled = !space->n_unsettled && !space->owed.n;
	if (!*settled && !uffd_is_changing(space->desc.uffd)) {
		r = copy_settle(space);
		*settled = true;
	}
	pthread_mutex_unlock(&capture->settle_lock);
	return r;
}

void copy_try_settle(struct capture *capture, struct space *space)
{
	uint64_t began_ns = now_ns(), now = began_ns;
	bool settled = false;
	int r = 0;

	while (atomic_load(&capture->mode) == MODE_CAPTURE &&
	       now - began_ns < TRY_NS) {
		r = settle(capture, space, &settled);
		if (r || settled || uffd_is_readable(space->desc.uffd))
			break;
		/* Who changes something may need this processor. */
		if (now - began_ns > SPIN_NS)
			uffd_wait_for_change();
		now = now_ns();
	}
	if (r)
		capture_fail(capture, r);
}

int copy_settle_all(struct capture *capture)
{
	uint64_t began_ns = now_ns();
	bool settled = false;
	int r = 0;

	for (unsigned i = 0; !r && i < capture->n_spaces; i += settled) {
		pthread_mutex_lock(&capture->layout);
		r = settle(capture, capture->spaces[i], &settled);
		pthread_mutex_unlock(&capture->layout);
		if (r || settled)
			continue;
		if (now_ns() - began_ns > SETTLE_NS) {
			log_error(
				"pid %d: changes its mappings without a pause: whether all was captured from its place cannot be told; the snapshot is discarded",
				capture->spaces[i]->desc.pid);
			return RESULT_INCONSISTENT;
		}
		uffd_wait_for_change();
		r = capture_look_around(capture);
	}
	return r;
}
