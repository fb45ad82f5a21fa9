/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "sys/sched.h"
#include "sys/uffd.h"

/* How often the scanner looks whether the target is still there. */
#define ALIVE_EVERY_EXTENTS 64

static void set_done(struct region *region, struct range range)
{
	struct block block;

	for (uint64_t at = range.start; at < range.end; at = block.range.end) {
		block = region_block(region, at);
		bitmap_test_and_set(&region->done, block.number);
	}
}

/* Captures `range`, whose blocks are owned by the caller. -EAGAIN: they are not
 * any more. */
static int capture_range(struct capture *capture, struct region *region,
			 struct range range)
{
	struct filler *scanner = &capture->scanner;
	size_t used = scanner->slab->used;
	int r, released;

	r = capture_copy(capture, region, range, scanner);
	if (r == -EAGAIN) {
		take_back(capture, region, range);
		return r;
	}
	INJECT_INTO(r, "scan-copy-done");
	if (!r)
		set_done(region, range);
	atomic_fetch_add(&scanner->n_pages,
			 (scanner->slab->used - used) / PAGE_SIZE);

	if (!r)
		r = alias_take(capture, region, range,
			       &capture->scanner_aliases);

	released = take_release(capture, region, range, NULL);
	INJECT_INTO(released, "scan-release-done");
	if (!r && released)
		r = log_errno(released, "pid %d: cannot unprotect %#llx: %m",
			      region->space->desc.pid,
			      (unsigned long long)range.start);
	return r;
}

static int check_all_is_well(struct capture *capture)
{
	int verdict = atomic_load(&capture->verdict);

	if (verdict)
		return verdict;
	if (interrupt_pending())
		return -EINTR;
	capture_report(capture);
	return 0;
}

/* Captures what is left of an extent, in runs of blocks as long as can be. */
static int scan_extent(struct capture *capture, struct region *region,
		       struct range extent)
{
	struct block block, first;
	uint64_t at = extent.start;
	int r = 0;

	while (!r && at < extent.end) {
		first = region_block(region, at);
		at = first.range.end;
		if (!region_claim(region, first.number))
			continue;
		while (at < extent.end) {
			block = region_block(region, at);
			if (!region_claim(region, block.number))
				break;
			at = block.range.end;
		}

		r = capture_range(capture, region,
				  (struct range){ first.range.start, at });
		if (r != -EAGAIN)
			continue;
		/* It moves. The event of that will be read soon. */
		at = first.range.start;
		uffd_wait_for_change();
		r = check_all_is_well(capture);
	}
	return r;
}

static int scan_region(struct capture *capture, struct region *region)
{
	for (size_t i = 0; i < region->n_extents; i++) {
		struct range extent = region_extent_range(region, i);
		struct sched_before before;
		uint64_t n;
		int r = check_all_is_well(capture);

		if (!r && i % ALIVE_EVERY_EXTENTS == 0)
			r = capture_check_alive(capture, region->space);
		if (r)
			return r;
		n = bitmap_count(&region->populated,
				 region_page(region, extent.start),
				 region_page(region, extent.end));
		/* What is empty and protected is left to the end. */
		if (!n)
			continue;

		/* Nothing is claimed while waiting for a buffer. */
		r = filler_make_room(capture, &capture->scanner, n);
		if (r)
			return r;

		/* Whoever wants to write to what is claimed waits until this
		 * thread gets a processor. */
		before = sched_favour();
		watch_begin(capture->config.watch, WATCH_SCAN);
		r = scan_extent(capture, region, extent);
		watch_end(capture->config.watch, WATCH_SCAN);
		sched_restore(&before);
		if (r)
			return r;
	}
	return 0;
}

int scan_all(struct capture *capture)
{
	int r = 0;

	for (unsigned i = 0; !r && i < capture->n_regions; i++)
		r = scan_region(capture, capture->regions[i]);
	filler_queue(capture, &capture->scanner);
	filler_queue(capture, &capture->scanner_aliases);
	return r ? r : check_all_is_well(capture);
}
