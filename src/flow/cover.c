/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/cover.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "sys/pagemap.h"

/* From here on a mapping is covered by the slices of it that hold pages. */
#define GIANT (64 * GIB)
#define SLICE GIB

struct parts {
	struct cover_part *parts;
	size_t n, max;
};

static int append(struct parts *list, const struct cover_part *part)
{
	if (list->n == list->max) {
		size_t max = list->max * 2 + 64;
		struct cover_part *parts =
			reallocarray(list->parts, max, sizeof(*parts));

		if (!parts)
			return -ENOMEM;
		list->parts = parts;
		list->max = max;
	}
	list->parts[list->n++] = *part;
	return 0;
}

static void free_parts(struct parts *list)
{
	free(list->parts);
}

#define _cleanup_parts_ _cleanup_(free_parts)

/* Whether `b` continues, or is, the memory that `a` is a piece of. */
static bool is_same_memory(const struct cover_part *a,
			   const struct cover_part *b)
{
	return a->file_id == b->file_id && a->page_size == b->page_size &&
	       a->shared == b->shared &&
	       (!a->file_id || a->file_offset - a->range.start ==
				       b->file_offset - b->range.start);
}

/* Appends, or makes the last one longer. */
static int append_merged(struct parts *list, const struct cover_part *part)
{
	struct cover_part *last = list->n ? &list->parts[list->n - 1] : NULL;

	if (last && last->range.end == part->range.start &&
	    is_same_memory(last, part)) {
		last->range.end = part->range.end;
		return 0;
	}
	return append(list, part);
}

struct slice_arg {
	struct parts *list;
	struct cover_part giant;
	uint64_t done; /* up to here */
};

static int add_slice(struct range run, unsigned flags, void *data)
{
	struct slice_arg *arg = data;
	struct cover_part slice = arg->giant;

	(void)flags;
	run.start = max_u64(run.start, arg->done);
	if (run.start >= run.end)
		return 0;
	slice.range.start = max_u64(ROUND_DOWN(run.start, SLICE),
				    max_u64(arg->done, slice.range.start));
	slice.range.end = min_u64(ROUND_UP(run.end, SLICE), slice.range.end);
	slice.file_offset += slice.range.start - arg->giant.range.start;
	arg->done = slice.range.end;
	return append_merged(arg->list, &slice);
}

/* What of the layout the engine is to capture, ascending. */
static int list_wanted(struct parts *list, const struct cover *cover,
		       const struct layout *layout)
{
	int r = 0;

	for (size_t i = 0; !r && i < layout->maps.n_maps; i++) {
		const struct layout_item *item = &layout->items[i];
		const struct proc_map *map = item->map;
		struct cover_part part = {
			.range = map->range,
			.page_size = item->page_size,
			.shared = map->shared,
		};

		if (item->how != LAYOUT_CAPTURE)
			continue;
		if (map->inode) {
			part.file = item->file;
			part.file_id = item->file + 1;
			part.file_offset = map->offset;
		}
		if (range_len(part.range) > GIANT && !map->inode) {
			struct slice_arg arg = { .list = list, .giant = part };

			r = pagemap_walk(cover->pagemap_fd, part.range,
					 add_slice, &arg);
		} else {
			r = append_merged(list, &part);
		}
	}
	return r ? log_errno(r, "pid %d: looking at its memory: %m", cover->pid)
		 : 0;
}

static int add_region(struct cover *cover, struct capture *capture,
		      const struct mapped_files *files, struct cover_part *part)
{
	struct region_desc desc = {
		.space = cover->space,
		.range = part->range,
		.page_size = part->page_size,
		.fd = part->file_id ? files->files[part->file].fd : -1,
		.fd_offset = part->file_offset,
		.file_id = part->file_id,
		.shared = part->shared,
	};

	return capture_add_region(capture, &desc);
}

struct update {
	struct cover *cover;
	struct capture *capture;
	const struct mapped_files *files;
	struct parts next; /* what the cover will be */
};

/* Cuts off what is before `end`; nothing may be left. */
static struct cover_part take_front(struct cover_part *part, uint64_t end)
{
	struct cover_part front = *part;

	front.range.end = min_u64(part->range.end, end);
	part->file_offset += range_len(front.range);
	part->range.start = front.range.end;
	return front;
}

static int add_wanted(struct update *u, struct cover_part *part)
{
	int r = add_region(u->cover, u->capture, u->files, part);

	return r ? r : append(&u->next, part);
}

static int drop_covered(struct update *u, const struct cover_part *part)
{
	return capture_drop(u->capture, u->cover->space, part->range);
}

/* Both begin at the same address: up to where one of them ends. */
static int update_both(struct update *u, struct cover_part *have,
		       struct cover_part *want)
{
	uint64_t end = min_u64(have->range.end, want->range.end);
	bool same = is_same_memory(have, want);
	struct cover_part old = take_front(have, end);
	struct cover_part new = take_front(want, end);
	int r;

	if (same)
		return append(&u->next, &old);
	r = drop_covered(u, &old);
	return r ? r : add_wanted(u, &new);
}

/* Takes the piece that begins first, up to where the other begins or both go
 * on. One of them may be NULL, behind the last. */
static int update_piece(struct update *u, struct cover_part *have,
			struct cover_part *want)
{
	uint64_t have_at = have ? have->range.start : UINT64_MAX;
	uint64_t want_at = want ? want->range.start : UINT64_MAX;
	struct cover_part piece;

	if (have_at == want_at)
		return update_both(u, have, want);
	if (have_at < want_at) {
		piece = take_front(have, want_at);
		return drop_covered(u, &piece);
	}
	piece = take_front(want, have_at);
	return add_wanted(u, &piece);
}

/* The first of which something is left, from *i on. */
static struct cover_part *skip_empty(struct cover_part *parts, size_t n,
				     size_t *i)
{
	while (*i < n && !range_len(parts[*i].range))
		(*i)++;
	return *i < n ? &parts[*i] : NULL;
}

/* What is covered but not wanted, or wanted as other memory, is dropped; what
 * is wanted and not covered is added. */
static int update(struct cover *cover, struct capture *capture,
		  const struct layout *layout, const struct mapped_files *files)
{
	struct update u = {
		.cover = cover,
		.capture = capture,
		.files = files,
	};
	_cleanup_parts_ struct parts wanted = {};
	struct cover_part *have, *want;
	size_t i = 0, k = 0;
	int r = list_wanted(&wanted, cover, layout);

	while (!r) {
		have = skip_empty(cover->parts, cover->n_parts, &i);
		want = skip_empty(wanted.parts, wanted.n, &k);
		if (!have && !want)
			break;
		r = update_piece(&u, have, want);
	}
	if (r) {
		free_parts(&u.next);
		return r;
	}
	free(cover->parts);
	cover->parts = u.next.parts;
	cover->n_parts = u.next.n;
	return 0;
}

/* Takes a range out of the cover: what is there is not what was armed. */
static int forget(struct cover *cover, struct capture *capture,
		  struct range range)
{
	_cleanup_parts_ struct parts next = {};
	int r = capture_drop(capture, cover->space, range);

	for (size_t i = 0; !r && i < cover->n_parts; i++) {
		struct cover_part before = cover->parts[i], after = before;

		before.range.end = min_u64(before.range.end, range.start);
		after.range.start = max_u64(after.range.start, range.end);
		after.file_offset +=
			after.range.start - cover->parts[i].range.start;
		if (before.range.start < before.range.end)
			r = append(&next, &before);
		if (!r && after.range.start < after.range.end)
			r = append(&next, &after);
	}
	if (r)
		return r;
	free(cover->parts);
	cover->parts = steal_ptr(next.parts);
	cover->n_parts = next.n;
	return 0;
}

/* Mappings that came where a region had a hole when it was registered. */
static int forget_unregistered(struct cover *cover, struct capture *capture,
			       const struct layout *layout)
{
	for (size_t i = 0; i < layout->maps.n_maps; i++) {
		const struct layout_item *item = &layout->items[i];
		int r;

		if (item->how != LAYOUT_CAPTURE)
			continue;
		r = capture_is_registered(capture, cover->space,
					  item->map->range);
		if (!r)
			r = forget(cover, capture, item->map->range);
		if (r < 0)
			return log_errno(r,
					 "pid %d: looking at what is armed: %m",
					 cover->pid);
	}
	return 0;
}

static int register_all(struct cover *cover, struct capture *capture,
			const struct layout *layout)
{
	int r = 0;

	for (size_t i = 0; !r && i < layout->maps.n_maps; i++)
		if (layout->items[i].how == LAYOUT_CAPTURE)
			r = capture_register(capture, cover->space,
					     layout->items[i].map->range);
	return r;
}

int cover_begin(struct cover *cover, struct capture *capture,
		const struct layout *layout, const struct mapped_files *files)
{
	int r = register_all(cover, capture, layout);

	return r ? r : update(cover, capture, layout, files);
}

int cover_finish(struct cover *cover, struct capture *capture,
		 const struct layout *layout, const struct mapped_files *files)
{
	int r = forget_unregistered(cover, capture, layout);

	if (!r)
		r = register_all(cover, capture, layout);
	return r ? r : update(cover, capture, layout, files);
}

void cover_deinit(struct cover *cover)
{
	free(cover->parts);
	*cover = (struct cover){};
}
