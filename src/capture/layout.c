/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Which addresses of which process belong to which region. Regions are added
 * as long as the target has not passed its instant, and lose what was unmapped
 * until then. Pages keep their numbers: a region that loses some is *cut*, and
 * another may lie where they were. After the instant what is captured may go,
 * and anything may move (move.c): numbers are by where it was.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"

/* The array with room for one more, or NULL, and it stays as it is. */
static void *with_room(void *array, unsigned n, unsigned *max, size_t size)
{
	if (n < *max)
		return array;
	array = reallocarray(array, *max * 2 + 8, size);
	if (array)
		*max = *max * 2 + 8;
	return array;
}

int capture_add_space(struct capture *capture, const struct capture_space *desc)
{
	_cleanup_close_ int uffd = desc->uffd;
	struct epoll_event event = { .events = EPOLLIN };
	struct space *space, **spaces;
	int r;

	if (capture->is_taken)
		return -EBUSY;
	spaces = with_room(capture->spaces, capture->n_spaces,
			   &capture->max_spaces, sizeof(*spaces));
	if (!spaces)
		return -ENOMEM;
	capture->spaces = spaces;
	space = calloc(1, sizeof(*space));
	if (!space)
		return -ENOMEM;
	space->desc = *desc;
	event.data.ptr = space;
	if (epoll_ctl(capture->faults.epoll_fd, EPOLL_CTL_ADD, uffd, &event)) {
		r = log_errno(-errno, "pid %d: epoll_ctl: %m", desc->pid);
		free(space);
		return r;
	}
	steal_fd(&uffd);
	discard_open(space);
	capture->spaces[capture->n_spaces] = space;
	return (int)capture->n_spaces++;
}

struct piece *space_find(const struct space *space, uint64_t addr)
{
	size_t low = 0, high = space->n_pieces;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (space->pieces[mid].range.end <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low < space->n_pieces ? &space->pieces[low] : NULL;
}

struct region *space_next(const struct space *space, uint64_t *at, uint64_t end,
			  struct range *range)
{
	const struct piece *piece = *at < end ? space_find(space, *at) : NULL;
	uint64_t start, to_home;

	if (!piece || piece->range.start >= end)
		return NULL;
	to_home = piece->home - piece->range.start;
	start = max_u64(*at, piece->range.start);
	*at = min_u64(end, piece->range.end);
	*range = (struct range){ start + to_home, *at + to_home };
	return piece->region;
}

/* Room for one piece more. */
static int make_room_for_piece(struct space *space)
{
	size_t max = space->max_pieces * 2 + 8;
	struct piece *pieces;

	if (space->n_pieces < space->max_pieces)
		return 0;
	pieces = reallocarray(space->pieces, max, sizeof(*pieces));
	if (!pieces)
		return -ENOMEM;
	space->pieces = pieces;
	space->max_pieces = max;
	return 0;
}

static void insert_piece(struct space *space, size_t at, struct piece piece)
{
	memmove(&space->pieces[at + 1], &space->pieces[at],
		(space->n_pieces - at) * sizeof(piece));
	space->pieces[at] = piece;
	space->n_pieces++;
}

static int index_region(struct space *space, struct region *region)
{
	struct piece piece = { region->desc.range, region,
			       region->desc.range.start };
	struct piece *next;
	int r = make_room_for_piece(space);

	if (r)
		return r;
	next = space_find(space, piece.range.start);
	if (next && next->range.start < piece.range.end) {
		log_error("pid %d: regions %u and %u overlap", space->desc.pid,
			  next->region->number, region->number);
		return -EINVAL;
	}
	insert_piece(space,
		     next ? (size_t)(next - space->pieces) : space->n_pieces,
		     piece);
	return 0;
}

static int add_region(struct capture *capture, struct region *region,
		      const struct region_desc *desc)
{
	struct space *space = capture->spaces[desc->space];
	int r = region_init(region, desc, capture->config.granule_bytes,
			    capture->hole_fd);

	if (r)
		return log_errno(
			r, "pid %d: preparing for its memory at %#llx: %m",
			space->desc.pid, (unsigned long long)desc->range.start);
	region->number = capture->n_regions;
	region->space = space;
	pthread_mutex_lock(&capture->layout);
	r = index_region(space, region);
	pthread_mutex_unlock(&capture->layout);
	if (r)
		region_deinit(region);
	return r;
}

int capture_add_region(struct capture *capture, const struct region_desc *desc)
{
	struct region *region, **regions;
	int r;

	if (capture->is_taken)
		return -EBUSY;
	if (desc->space >= capture->n_spaces)
		return -EINVAL;
	regions = with_room(capture->regions, capture->n_regions,
			    &capture->max_regions, sizeof(*regions));
	if (!regions)
		return -ENOMEM;
	capture->regions = regions;
	region = calloc(1, sizeof(*region));
	if (!region)
		return -ENOMEM;
	r = add_region(capture, region, desc);
	if (r) {
		free(region);
		return r;
	}
	capture->regions[capture->n_regions++] = region;
	return alias_add(capture, region);
}

struct range capture_region_range(const struct capture *capture,
				  unsigned region, unsigned *space)
{
	const struct region_desc *desc = &capture->regions[region]->desc;

	*space = desc->space;
	return desc->range;
}

static void forget(struct region *region, struct range range)
{
	uint64_t first = region_page(region, range.start);
	uint64_t end = region_page(region, range.end);

	bitmap_clear_range(&region->populated, first, end);
	bitmap_clear_range(&region->noted, first, end);
	bitmap_clear_range(&region->removed, first, end);
}

/* Takes `hit`, which is within the piece, out of the index. */
static void cut_piece(struct space *space, struct piece *piece,
		      struct range hit)
{
	struct piece rest = *piece;
	size_t at = (size_t)(piece - space->pieces);

	rest.range.start = hit.end;
	rest.home += hit.end - piece->range.start;
	piece->range.end = hit.start;
	if (range_len(piece->range) && range_len(rest.range)) {
		insert_piece(space, at + 1, rest);
	} else if (range_len(rest.range)) {
		*piece = rest;
	} else if (!range_len(piece->range)) {
		space->n_pieces--;
		memmove(piece, piece + 1,
			(space->n_pieces - at) * sizeof(*piece));
	}
}

/* What of the piece is within `range`, and where that has its pages. */
static struct range hit_piece(const struct piece *piece, struct range range,
			      struct range *home)
{
	struct range hit = {
		max_u64(piece->range.start, range.start),
		min_u64(piece->range.end, range.end),
	};
	uint64_t to_home = piece->home - piece->range.start;

	*home = (struct range){ hit.start + to_home, hit.end + to_home };
	return hit;
}

static struct piece *find_within(const struct space *space, struct range range)
{
	struct piece *piece = space_find(space, range.start);

	return piece && piece->range.start < range.end ? piece : NULL;
}

static int drop(struct space *space, struct range range)
{
	struct piece *piece;
	int r = make_room_for_piece(space);

	while (!r && (piece = find_within(space, range))) {
		struct region *region = piece->region;
		struct range home, hit = hit_piece(piece, range, &home);

		r = region_cut(region, home);
		if (r)
			break;
		forget(region, home);
		cut_piece(space, piece, hit);
		range.start = hit.end;
	}
	return r;
}

int space_forget(struct space *space, struct range range)
{
	struct piece *piece;
	int r = make_room_for_piece(space);

	while (!r && (piece = find_within(space, range))) {
		struct range home, hit = hit_piece(piece, range, &home);

		r = region_cut(piece->region, home);
		if (r)
			break;
		cut_piece(space, piece, hit);
		range.start = hit.end;
	}
	return r;
}

/* Makes one of two that continue each other. */
static void merge_pieces(struct space *space, size_t i)
{
	struct piece *a = &space->pieces[i], *b = a + 1;

	if (i + 1 >= space->n_pieces || a->region != b->region ||
	    a->range.end != b->range.start ||
	    a->home + range_len(a->range) != b->home)
		return;
	a->range.end = b->range.end;
	space->n_pieces--;
	memmove(b, b + 1, (space->n_pieces - i - 1) * sizeof(*b));
}

static void place_piece(struct space *space, struct piece piece)
{
	struct piece *next = space_find(space, piece.range.start);
	size_t at = next ? (size_t)(next - space->pieces) : space->n_pieces;

	insert_piece(space, at, piece);
	merge_pieces(space, at);
	if (at)
		merge_pieces(space, at - 1);
}

int space_move(struct space *space, struct range from, uint64_t to)
{
	uint64_t to_new = to - from.start;
	struct piece *piece;
	int r = 0;

	while (!r && (piece = find_within(space, from))) {
		struct range home, hit = hit_piece(piece, from, &home);
		struct piece moved = { { hit.start + to_new, hit.end + to_new },
				       piece->region,
				       home.start };

		r = region_move(moved.region, home, moved.range.start);
		if (r)
			break;
		moved.region->n_moves++;
		r = make_room_for_piece(space);
		if (!r)
			cut_piece(space, find_within(space, hit), hit);
		if (!r)
			r = make_room_for_piece(space);
		if (!r)
			place_piece(space, moved);
		from.start = hit.end;
	}
	return r;
}

int capture_drop(struct capture *capture, unsigned space, struct range range)
{
	int r;

	if (capture->is_taken)
		return -EBUSY;
	if (space >= capture->n_spaces || range.start > range.end ||
	    range.start % PAGE_SIZE || range.end % PAGE_SIZE)
		return -EINVAL;
	pthread_mutex_lock(&capture->layout);
	r = drop(capture->spaces[space], range);
	pthread_mutex_unlock(&capture->layout);
	return r;
}

void layout_deinit(struct capture *capture)
{
	alias_deinit(capture);
	for (unsigned i = 0; i < capture->n_regions; i++) {
		region_deinit(capture->regions[i]);
		free(capture->regions[i]);
	}
	free(capture->regions);
	for (unsigned i = 0; i < capture->n_spaces; i++) {
		close_fd(&capture->spaces[i]->info_fd);
		close_fd(&capture->spaces[i]->desc.uffd);
		free(capture->spaces[i]->pieces);
		free(capture->spaces[i]->unsettled);
		range_list_deinit(&capture->spaces[i]->owed);
		range_list_deinit(&capture->spaces[i]->passed);
		free(capture->spaces[i]);
	}
	free(capture->spaces);
}
