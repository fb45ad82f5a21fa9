/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Memory that is mapped more than once. A write through one mapping changes
 * what all others show, but faults only where it is made. So nothing that is
 * mapped shared is released before its siblings, whatever overlaps it in the
 * file, have been captured, too. These stay protected: what is written through
 * them may change yet others.
 *
 * While arming, a fault says of one mapping only that a page exists now. It is
 * then held to exist in all.
 */

#include <errno.h>
#include <stdlib.h>

/* What follows differs by address and by offset. */
static uint64_t to_file(const struct region *region)
{
	return region->desc.fd_offset - region->desc.range.start;
}

static struct shared_file *find_file(struct capture *capture, uint64_t id)
{
	struct shared_file *file;

	for (file = capture->files; file && file->id != id; file = file->next)
		;
	return file;
}

int alias_add(struct capture *capture, struct region *region)
{
	uint64_t id = region->desc.file_id;
	struct shared_file *file = find_file(capture, id);
	unsigned max;

	if (!id)
		return 0;
	if (!file) {
		file = calloc(1, sizeof(*file));
		if (!file)
			return -ENOMEM;
		file->id = id;
		file->next = capture->files;
		capture->files = file;
	}
	if (file->n_regions == file->max_regions) {
		struct region **regions;

		max = file->max_regions * 2 + 4;
		regions = reallocarray(file->regions, max, sizeof(*regions));
		if (!regions)
			return -ENOMEM;
		file->regions = regions;
		file->max_regions = max;
	}
	file->regions[file->n_regions++] = region;
	region->file = file;
	return 0;
}

void alias_deinit(struct capture *capture)
{
	while (capture->files) {
		struct shared_file *file = capture->files;

		capture->files = file->next;
		free(file->regions);
		free(file);
	}
}

struct region *alias_next(const struct region *region, struct range range,
			  unsigned *i, struct range *hit)
{
	const struct shared_file *file = region->file;

	/* What is written to a private mapping is its own. */
	while (file && region->desc.shared && *i < file->n_regions) {
		struct region *other = file->regions[(*i)++];
		uint64_t to_other = to_file(region) - to_file(other);
		struct range at = { range.start + to_other,
				    range.end + to_other };

		/* By offset: an address may be before that of offset 0. */
		if (other == region ||
		    range.start + to_file(region) >=
			    other->desc.range.end + to_file(other) ||
		    range.end + to_file(region) <=
			    other->desc.range.start + to_file(other))
			continue;
		if (range.start + to_file(region) < other->desc.fd_offset)
			at.start = other->desc.range.start;
		hit->start = at.start;
		hit->end = min_u64(at.end, other->desc.range.end);
		return other;
	}
	return NULL;
}

static void set_populated(struct region *region, struct range range)
{
	struct region_part part;

	while (!region->desc.guard && region_next_part(region, &range, &part))
		bitmap_set_range(&region->populated,
				 region_page(region, part.range.start),
				 region_page(region, part.range.end));
}

void alias_set_populated(struct region *region, struct range range)
{
	struct region *other;
	struct range hit;
	unsigned i = 0;

	set_populated(region, range);
	while ((other = alias_next(region, range, &i, &hit)))
		set_populated(other, hit);
}

int alias_take(struct capture *capture, struct region *region,
	       struct range range, struct filler *filler)
{
	struct region *other;
	struct range hit;
	unsigned i = 0;
	int r = 0;

	while (!r && (other = alias_next(region, range, &i, &hit)))
		r = take_range(capture, other, hit, filler);
	return r;
}

int alias_take_file(struct capture *capture, struct region *region,
		    struct filler *filler)
{
	const struct shared_file *file = region->file;
	int r = take_range(capture, region, region->desc.range, filler);

	for (unsigned i = 0; file && !r && i < file->n_regions; i++)
		r = take_range(capture, file->regions[i],
			       file->regions[i]->desc.range, filler);
	return r;
}

bool alias_is_left(struct region *region, struct range range, bool all)
{
	const struct shared_file *file = region->file;
	struct region *other;
	struct range hit;
	uint64_t ignored;
	unsigned i = 0;

	if (!all) {
		while ((other = alias_next(region, range, &i, &hit)))
			if (move_find_lost(other, hit, &ignored))
				return true;
		return false;
	}
	for (; file && i < file->n_regions; i++)
		if (move_find_lost(file->regions[i],
				   file->regions[i]->desc.range, &ignored))
			return true;
	return move_find_lost(region, region->desc.range, &ignored);
}
