/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Taking blocks, and letting them go. Most are released by who captured them.
 * Some are captured and stay protected, because whoever changes them next does
 * so without a fault of theirs. A fault on such a block, while it is being
 * copied, is not answered by its owner: the fault thread marks it as *wanted*
 * and looks whether it is done; the owner marks it as done and looks whether
 * it is wanted, and has the fault thread serve it again. Both are atomic
 * read-modify-writes and so come in one order or the other.
 */

#include <errno.h>

#include "base/log.h"
#include "base/result.h"
#include "sys/uffd.h"

/* The first part of `rest`; moves that behind it. -EAGAIN: the kernel refuses,
 * since it may be somewhere else by now. */
static int release_part(const struct region *region, struct range *rest)
{
	struct range left = *rest;
	struct region_part part;
	int r;

	if (!region_next_part(region, &left, &part)) {
		rest->start = rest->end;
		return 0;
	}
	/* What the kernel refuses to release, it wakes nobody in. */
	r = uffd_for_registered(
		region->space->desc.uffd,
		(struct range){ part.addr, part.addr + range_len(part.range) },
		region->desc.page_size, uffd_try_unprotect);
	if (r == -ENOENT || r == -ESRCH)
		r = 0;
	if (!r)
		*rest = left;
	return r;
}

int take_release(struct capture *capture, const struct region *region,
		 struct range range, wait_fn wait)
{
	int r = 0;

	while (!r && range.start < range.end) {
		/* While it is held no event is read: what the kernel does not
		 * refuse is where we think it is. */
		if (!wait)
			pthread_mutex_lock(&capture->layout);
		r = release_part(region, &range);
		if (!wait)
			pthread_mutex_unlock(&capture->layout);
		if (r != -EAGAIN)
			continue;
		r = 0;
		if (wait)
			wait(capture, region->space);
		else
			uffd_wait_for_change();
	}
	return r;
}

void filler_queue(struct capture *capture, struct filler *filler)
{
	if (filler->slab)
		slab_queue(&capture->pool, filler->slab);
	filler->slab = NULL;
}

/* For those whom the target waits for; whoever watches them can tell why. */
static struct slab *wait_for_slab(struct capture *capture,
				  const struct filler *filler, uint64_t n)
{
	struct watch *watch = capture->config.watch;
	struct slab *slab;

	if (watch)
		atomic_fetch_add(&watch->n_without_buffer, 1);
	slab = slab_get(&capture->pool, filler->reserved, n);
	if (watch)
		atomic_fetch_sub(&watch->n_without_buffer, 1);
	return slab;
}

static int get_slab(struct capture *capture, struct filler *filler, uint64_t n)
{
	int r = 0;

	if (!filler->looks_around) {
		filler->slab = wait_for_slab(capture, filler, n);
		return filler->slab ? 0 : -ECANCELED;
	}
	/* The sink may stall for as long as it likes. */
	while (!r && !filler->slab) {
		filler->slab = slab_get_within(&capture->pool, filler->reserved,
					       n, CAPTURE_PROGRESS_NS);
		if (!filler->slab)
			r = capture_look_around(capture);
	}
	return r;
}

int filler_make_room(struct capture *capture, struct filler *filler, uint64_t n)
{
	int r = 0;

	if (filler->slab && slab_room(filler->slab) < n)
		filler_queue(capture, filler);
	if (!filler->slab)
		r = get_slab(capture, filler, n);
	if (!r)
		slab_touch(&capture->pool, filler->slab, n);
	return r;
}

static uint64_t count(const struct region *region, struct range range)
{
	return bitmap_count(&region->populated,
			    region_page(region, range.start),
			    region_page(region, range.end));
}

void take_back(struct capture *capture, struct region *region,
	       struct range range)
{
	while (range.start < range.end) {
		struct block block = region_block(region, range.start);

		bitmap_test_and_set(&region->todo, block.number);
		if (bitmap_test_and_clear(&region->wanted, block.number))
			fault_thread_again(capture, region, block.range);
		range.start = block.range.end;
	}
}

int take_block(struct capture *capture, struct region *region,
	       const struct block *block, struct filler *filler)
{
	uint64_t n = count(region, block->range);
	int r = 0;

	if (n)
		r = filler_make_room(capture, filler, n);
	if (n && !r)
		r = capture_copy(capture, region, block->range, filler);
	if (r == -EAGAIN)
		take_back(capture, region, block->range);
	if (r)
		return r;
	atomic_fetch_add(&filler->n_pages, n);
	bitmap_test_and_set(&region->done, block->number);
	return 0;
}

/* Until who owns the block has captured it; or -EAGAIN, nobody owns it. */
static int wait_until_done(struct capture *capture, struct region *region,
			   uint64_t number)
{
	while (!bitmap_test(&region->done, number)) {
		int verdict = atomic_load(&capture->verdict);

		if (verdict)
			return verdict;
		if (bitmap_test(&region->todo, number))
			return -EAGAIN;
		uffd_wait_for_change();
	}
	return 0;
}

/* Without releasing it. */
static int secure_block(struct capture *capture, struct region *region,
			const struct block *block, struct filler *filler)
{
	uint64_t n = count(region, block->range);
	int r;

	if (!n || bitmap_test(&region->done, block->number))
		return 0;
	/* Nothing is claimed while waiting for a buffer. */
	r = filler_make_room(capture, filler, n);
	if (r)
		return r;
	if (!region_claim(region, block->number))
		return wait_until_done(capture, region, block->number);
	r = take_block(capture, region, block, filler);
	if (r == -EAGAIN)
		return r;
	if (r)
		capture_fail(capture, r);
	if (bitmap_test_and_clear(&region->wanted, block->number))
		fault_thread_again(capture, region, block->range);
	return r;
}

int take_range(struct capture *capture, struct region *region,
	       struct range range, struct filler *filler)
{
	int r = 0;

	while (!r && range.start < range.end) {
		struct block block = region_block(region, range.start);

		if (region->extents[region_extent(region, range.start)] &
		    EXTENT_ARMED)
			r = secure_block(capture, region, &block, filler);
		if (r == -EAGAIN && !filler->changes) {
			uffd_wait_for_change();
			r = atomic_load(&capture->verdict);
			continue;
		}
		range.start = block.range.end;
	}
	return r;
}

static int take_now(struct capture *capture, struct space *space,
		    struct range range)
{
	uint64_t at = range.start;
	struct region *region;
	struct range hit;
	int r = 0;

	while (!r && atomic_load(&capture->mode) == MODE_CAPTURE) {
		pthread_mutex_lock(&capture->layout);
		region = space_next(space, &at, range.end, &hit);
		pthread_mutex_unlock(&capture->layout);
		if (!region)
			break;
		r = take_range(capture, region, hit, &capture->now);
	}
	filler_queue(capture, &capture->now);
	return r;
}

int capture_range_now(struct capture *capture, unsigned space,
		      struct range range)
{
	int r;

	if (space >= capture->n_spaces)
		return -EINVAL;
	pthread_mutex_lock(&capture->now_lock);
	watch_begin(capture->config.watch, WATCH_CALL);
	r = take_now(capture, capture->spaces[space], range);
	watch_end(capture->config.watch, WATCH_CALL);
	pthread_mutex_unlock(&capture->now_lock);
	if (r)
		return capture_fail(capture, r);
	return atomic_load(&capture->verdict);
}
