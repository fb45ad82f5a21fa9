/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Theory of operation. Protecting all of a large memory takes tens of
 * milliseconds a GiB, so none of it may happen while the target is frozen:
 *
 *   arm     (running)  all extents that hold a page are protected; writes in
 *                      the meantime cost a fault and are noted
 *   settle  (running)  what was noted is protected again; each round is
 *                      shorter than the one before, so less is noted
 *   rearm   (frozen)   the same, once more, for the last few; and extents that
 *                      had no page are looked at again, which is cheap since
 *                      the kernel passes over empty page tables
 *
 * An extent without a page is not protected in anonymous memory: the kernel
 * would have to fill a page table with markers, and the extent could then get
 * no huge page. It holds nothing in the frozen instant either, or the last
 * look finds what was put there.
 */

#include <errno.h>
#include <string.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "sys/pagemap.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/uffd.h"

/* How much is protected with one call: the target's own page faults and
 * mappings take turns with it. */
#define PROTECT_STEP (32 * MIB)

/* Rounds of settling: stop when little is left, or when it gets no less. */
#define SETTLE_ROUNDS	8
#define SETTLE_ENOUGH	256
/* Beyond what is there when the first look is taken. */
#define POOL_EXTRA	(32 * MIB)
/* Protecting a page that is protected costs less than another call. */
#define MERGE_GAP_PAGES 32

/*
 * Whether an error may mean that a mapping is gone, or a process of several.
 */
static bool is_gone(const struct capture *capture, int r)
{
	return r == -ENOENT || (r == -ESRCH && capture->config.mappings_change);
}

/*
 * What to do about memory that cannot be protected. While the target runs it
 * may just have gone: that is seen to in the freeze.
 */
static int protect_failed(struct capture *capture, struct region *region,
			  struct range range, int r)
{
	const struct space *space = region->space;

	if (!capture->is_taken && is_gone(capture, r)) {
		bitmap_set_range(&region->removed,
				 region_page(region, range.start),
				 region_page(region, range.end));
		return 0;
	}
	if (r == -ESRCH)
		return capture_target_died(space);
	return log_errno(r, "pid %d: cannot protect %#llx to %#llx: %m",
			 space->desc.pid, (unsigned long long)range.start,
			 (unsigned long long)range.end);
}

/* In the freeze: what came into being after its region was registered, where
 * there was nothing before, is registered now. */
static int protect_step(const struct capture *capture,
			const struct region *region, struct range step)
{
	int uffd = region->space->desc.uffd;
	int r = INJECT("arm-protect") ?: uffd_protect(uffd, step);

	if (r != -ENOENT || !capture->is_taken ||
	    capture->config.registered_by_caller)
		return r;
	r = uffd_register_wp(uffd, step);
	return r ? -ENOENT : uffd_protect(uffd, step);
}

/* A kernel without markers takes what lies in one mapping, and no more. */
static int protect_mappings(struct capture *capture, struct region *region,
			    struct range range)
{
	uint64_t page_size = region->desc.page_size;
	struct range left = range, right = range;
	int r = protect_step(capture, region, range);

	if (r != -ENOENT || capture->config.markers ||
	    range_len(range) <= page_size)
		return r ? protect_failed(capture, region, range, r) : 0;
	left.end = range.start + ROUND_UP(range_len(range) / 2, page_size);
	right.start = left.end;
	r = protect_mappings(capture, region, left);
	return r ? r : protect_mappings(capture, region, right);
}

static int protect(struct capture *capture, struct region *region,
		   struct range range)
{
	struct region_part part;

	while (region_next_part(region, &range, &part)) {
		struct range rest = part.range;

		while (rest.start < rest.end) {
			struct range step = {
				rest.start,
				min_u64(rest.end, rest.start + PROTECT_STEP),
			};
			int r = protect_mappings(capture, region, step);

			if (r)
				return r;
			rest.start = step.end;
		}
	}
	return 0;
}

static int register_failed(const struct space *space, struct range range, int r)
{
	pid_t pid = space->desc.pid;

	/* The kernel's word for an address space that is gone, too. */
	if (r == -ENOMEM)
		return capture_target_died(space);
	if (r == -EBUSY)
		log_error(
			"pid %d: another userfaultfd is registered on the memory at %#llx: a postcopy, a background snapshot or another dump is under way; wait until it ends",
			pid, (unsigned long long)range.start);
	else
		log_errno(
			r,
			"pid %d: the memory at %#llx cannot be write-protected by userfaultfd (%m): it must be anonymous or, since Linux 5.19, memfd, tmpfs or hugetlbfs",
			pid, (unsigned long long)range.start);
	return RESULT_UNSUPPORTED;
}

/* Whether it is: 0 and region->registered. Else it is left to the freeze. */
static int register_region(struct capture *capture, struct region *region)
{
	struct range rest = region->desc.range;
	struct region_part part;

	region->registered = true;
	if (capture->config.registered_by_caller)
		return 0;
	INJECT_HERE("arm-register");
	while (region_next_part(region, &rest, &part)) {
		int r = uffd_register_wp(region->space->desc.uffd, part.range);

		if (!r)
			continue;
		if (capture->is_taken || !capture->config.mappings_change)
			return register_failed(region->space, part.range, r);
		log_debug("pid %d: %#llx cannot be registered yet (%s)",
			  region->space->desc.pid,
			  (unsigned long long)part.range.start, strerror(-r));
		region->registered = false;
		return 0;
	}
	return 0;
}

/* Marks as armed, and todo, every extent of `range` that holds a page. */
static void choose_extents(struct region *region, struct range range)
{
	bool all = !region_is_sparse(region);

	for (size_t i = region_extent(region, range.start);
	     i <= region_extent(region, range.end - 1); i++) {
		struct range extent = region_extent_range(region, i);
		uint64_t first = region_page(region, extent.start);
		uint64_t end = region_page(region, extent.end);
		struct block block;

		if (!all &&
		    bitmap_find_set(&region->populated, first, end) == end)
			continue;
		if (region_is_hugetlb(region))
			region->extents[i] |= EXTENT_HUGE;
		region->extents[i] |= EXTENT_ARMED;
		for (uint64_t at = extent.start; at < extent.end;
		     at = block.range.end) {
			block = region_block(region, at);
			bitmap_test_and_set(&region->todo, block.number);
		}
	}
}

/* The first run of extents from *extent on that are armed, or are not; moves
 * *extent behind it. False when there is none. */
static bool next_extents(const struct region *region, size_t *extent,
			 bool armed, struct range *run)
{
	size_t i = *extent, first;

	while (i < region->n_extents &&
	       !(region->extents[i] & EXTENT_ARMED) == armed)
		i++;
	first = i;
	while (i < region->n_extents &&
	       !(region->extents[i] & EXTENT_ARMED) != armed)
		i++;
	*extent = i;
	if (first == i)
		return false;
	run->start = region_extent_range(region, first).start;
	run->end = region_extent_range(region, i - 1).end;
	return true;
}

static int find_populated(struct capture *capture, struct region *region,
			  struct range range, bool markers)
{
	const struct capture_space *space = &region->space->desc;
	int r;

	if (region->desc.guard)
		return 0;
	r = INJECT("arm-look");
	if (!r)
		r = region_find_populated(region, space->pagemap_fd, range,
					  markers);
	if (r == -ESRCH && !capture->is_taken && is_gone(capture, r))
		return 0;
	if (r)
		return log_errno(r, "pid %d: reading /proc/%d/pagemap: %m",
				 space->pid, space->pid);
	return 0;
}

/* What has gone is seen, too, where that can be told. */
static int look_anew(struct capture *capture, struct region *region,
		     struct range range, bool markers)
{
	if (region_is_file(region))
		bitmap_clear_range(&region->populated,
				   region_page(region, range.start),
				   region_page(region, range.end));
	return find_populated(capture, region, range, markers);
}

static int arm_region(struct capture *capture, struct region *region,
		      bool markers)
{
	struct range range;
	size_t extent = 0;
	int r;

	while (next_extents(region, &extent, true, &range)) {
		if (interrupt_pending())
			return -EINTR;
		r = holes_fill(capture, region, range);
		if (!r)
			r = protect(capture, region, range);
		/* Pages that came between the first look and protection. */
		if (!r)
			r = look_anew(capture, region, range, markers);
		if (r)
			return r;
	}
	return 0;
}

/* The first look at what exists in a region that is new: it tells what to
 * protect, and how much memory for copies is worth having. */
static int look_at(struct capture *capture, struct region *region,
		   uint64_t *n_bytes)
{
	struct range range = region->desc.range;
	int r;

	/* The fault thread, which may run, sees the region in the index. */
	pthread_mutex_lock(&capture->layout);
	r = find_populated(capture, region, range, false);
	if (!r)
		choose_extents(region, range);
	pthread_mutex_unlock(&capture->layout);
	if (r)
		return r;
	*n_bytes += PAGE_SIZE *
		    bitmap_count(&region->populated, 0, region_n_pages(region));
	return 0;
}

/* All that exists, and what may come in addition, up to the limit. */
static int make_pool(struct capture *capture, uint64_t n_bytes)
{
	uint64_t bytes = min_u64(n_bytes + n_bytes / 8 + POOL_EXTRA,
				 capture->config.buffer_bytes);
	int r = INJECT("arm-pool") ?: slab_pool_init(&capture->pool, bytes);

	if (r)
		return log_errno(r, "cannot allot %llu MiB of buffers: %m",
				 (unsigned long long)(bytes / MIB));
	capture->has_pool = true;
	return 0;
}

/* Before anything is registered there must be who reads the faults. */
static int start_threads(struct capture *capture, uint64_t n_bytes)
{
	int r = 0;

	if (!capture->has_pool)
		r = make_pool(capture, n_bytes);
	if (!r && !capture->faults.running)
		r = fault_thread_start(capture);
	if (!r && !capture->output_running)
		r = output_start(capture);
	return r;
}

/*
 * What was written through one mapping after another had been looked at, and
 * before the one was armed, was noted nowhere.
 */
static int look_at_files(struct capture *capture, bool markers)
{
	struct shared_file *file;
	int r = 0;

	for (file = capture->files; file; file = file->next) {
		bool has_new = file->has_new && file->n_regions > 1;

		file->has_new = false;
		for (unsigned i = 0; has_new && !r && i < file->n_regions; i++)
			if (file->regions[i]->registered)
				r = find_populated(capture, file->regions[i],
						   file->regions[i]->desc.range,
						   markers);
	}
	return r;
}

/* Arms the regions that are not. */
static int arm_new_regions(struct capture *capture)
{
	unsigned first = capture->n_armed;
	uint64_t swap = 0, n_bytes = 0;
	int r = 0;

	for (unsigned i = first; !r && i < capture->n_regions; i++)
		if (!capture->regions[i]->registered)
			r = look_at(capture, capture->regions[i], &n_bytes);
	if (!r)
		r = start_threads(capture, n_bytes);
	/* With swap, what looks like a marker may be a page. */
	procfs_read_meminfo("SwapTotal", &swap);
	capture->has_swap = swap;
	for (unsigned i = first; !r && i < capture->n_regions; i++) {
		struct region *region = capture->regions[i];

		if (region->registered)
			continue;
		r = register_region(capture, region);
		if (!r && region->registered)
			r = arm_region(capture, region, !swap);
		if (!r && region->registered && region->file)
			region->file->has_new = true;
		if (!r && region->registered && capture->n_armed == i)
			capture->n_armed++;
	}
	return r ? r : look_at_files(capture, !swap);
}

int capture_start(struct capture *capture, uint64_t n_bytes)
{
	int r = start_threads(capture, n_bytes);

	return r ? capture_fail(capture, r) : 0;
}

int capture_register(struct capture *capture, unsigned space,
		     struct range range)
{
	const struct space *s = capture->spaces[space];
	int r = INJECT("cover-register");

	if (!r)
		r = uffd_register_wp(s->desc.uffd, range);
	return r ? register_failed(s, range, r) : 0;
}

int capture_arm(struct capture *capture)
{
	int r = arm_new_regions(capture);

	INJECT_INTO(r, "arm-done");
	if (!r)
		r = atomic_load(&capture->verdict);
	return r ? capture_fail(capture, r) : 0;
}

/* In all that map it. */
static int look_everywhere(struct capture *capture, struct region *region,
			   struct range range)
{
	struct region *twin;
	struct range hit;
	unsigned i = 0;
	int r = look_anew(capture, region, range, false);

	while (!r && (twin = alias_next(region, range, &i, &hit)))
		r = look_anew(capture, twin, hit, false);
	return r;
}

/* Protects one run of mostly noted pages, which are all in an armed extent. */
static int protect_noted(struct capture *capture, struct region *region,
			 uint64_t first, uint64_t end)
{
	struct range range = { region_addr(region, first),
			       region_addr(region, end) };
	uint64_t noted = first, next;
	int r;

	/* What was written exists, or will soon; what lies between may not. */
	while ((noted = bitmap_find_set(&region->noted, noted, end)) < end) {
		next = bitmap_find_clear(&region->noted, noted, end);
		alias_set_populated(region, (struct range){
						    region_addr(region, noted),
						    region_addr(region, next),
					    });
		bitmap_clear_range(&region->noted, noted, next);
		noted = next;
	}
	r = protect(capture, region, range);
	/* A writer may have been stopped before the page came to be. */
	if (!r && region_has_file(region))
		r = look_everywhere(capture, region, range);
	return r;
}

/* Protects again what was noted; *n_pages counts them. */
static int protect_all_noted(struct capture *capture, struct region *region,
			     uint64_t *n_pages)
{
	uint64_t n = region_n_pages(region), first = 0, end;

	while ((first = bitmap_find_set(&region->noted, first, n)) < n) {
		size_t extent =
			region_extent(region, region_addr(region, first));
		struct range within = region_extent_range(region, extent);
		uint64_t limit = region_page(region, within.end);
		uint64_t next;
		int r;

		end = bitmap_find_clear(&region->noted, first, limit);
		*n_pages += end - first;
		if (!(region->extents[extent] & EXTENT_ARMED)) {
			bitmap_clear_range(&region->noted, first, end);
			first = end;
			continue;
		}
		while ((next = bitmap_find_set(&region->noted, end, limit)) <
			       limit &&
		       next - end <= MERGE_GAP_PAGES) {
			end = bitmap_find_clear(&region->noted, next, limit);
			*n_pages += end - next;
		}
		r = protect_noted(capture, region, first, end);
		if (r)
			return r;
		first = end;
	}
	return 0;
}

static int protect_noted_everywhere(struct capture *capture, uint64_t *n_pages)
{
	int r = 0;

	*n_pages = 0;
	for (unsigned i = 0; !r && i < capture->n_regions; i++)
		r = protect_all_noted(capture, capture->regions[i], n_pages);
	capture->n_noted += *n_pages;
	return r ? r : atomic_load(&capture->verdict);
}

/*
 * Who had begun to discard memory before it was registered punches its hole
 * when he likes, and nothing tells of that. So the files are looked at once
 * more, while there is time for it.
 */
static int look_at_all_files(struct capture *capture)
{
	int r = 0;

	for (unsigned i = 0; !r && i < capture->n_regions; i++) {
		struct region *region = capture->regions[i];
		/* Huge pages are never swapped. */
		bool own = own_is_watched(region);

		if (region->registered && (own || region_is_file(region)))
			r = look_anew(capture, region, region->desc.range, own);
	}
	return r;
}

int capture_settle(struct capture *capture)
{
	uint64_t before = UINT64_MAX, n;
	int looked = look_at_all_files(capture);

	if (looked)
		return capture_fail(capture, looked);
	for (unsigned round = 0; round < SETTLE_ROUNDS; round++) {
		int r = protect_noted_everywhere(capture, &n);

		INJECT_INTO(r, "arm-settle");
		if (!r && interrupt_pending())
			r = -EINTR;
		if (r)
			return capture_fail(capture, r);
		log_debug("round %u of arming: %llu pages written", round,
			  (unsigned long long)n);
		if (n <= SETTLE_ENOUGH || n > before / 2)
			break;
		before = n;
	}
	return 0;
}

/* Arms what was put, since arming, into extents that had no page. */
static int arm_new_extents(struct capture *capture, struct region *region)
{
	struct range empty, run;
	size_t extent = 0, i;
	int r;

	if (!region_is_sparse(region))
		return 0;
	while (next_extents(region, &extent, false, &empty)) {
		r = find_populated(capture, region, empty, false);
		if (r)
			return r;
		choose_extents(region, empty);

		i = region_extent(region, empty.start);
		while (i < extent && next_extents(region, &i, true, &run)) {
			run.end = min_u64(run.end, empty.end);
			if (run.start >= empty.end)
				break;
			r = protect(capture, region, run);
			if (r)
				return r;
		}
	}
	return 0;
}

/* What was unmapped and mapped again has lost its registration; what lost only
 * its pages is registered once more, which changes nothing. */
static int register_again(const struct capture *capture, struct region *region,
			  struct range range)
{
	struct region_part part;

	if (!region->registered || capture->config.registered_by_caller)
		return 0;
	while (region_next_part(region, &range, &part)) {
		int r = uffd_register_wp(region->space->desc.uffd, part.range);

		if (r)
			return register_failed(region->space, part.range, r);
	}
	return 0;
}

/* Whatever changed since it was armed is armed like what was written to. */
static int note_removed(const struct capture *capture, struct region *region)
{
	uint64_t n = region_n_pages(region), first = 0, end;

	while ((first = bitmap_find_set(&region->removed, first, n)) < n) {
		int r;

		end = bitmap_find_clear(&region->removed, first, n);
		bitmap_set_range(&region->noted, first, end);
		r = register_again(capture, region,
				   (struct range){ region_addr(region, first),
						   region_addr(region, end) });
		if (r)
			return r;
		first = end;
	}
	return 0;
}

/* A page of the range that is protected if its mapping is registered. */
static bool find_armed_page(const struct region *region, struct range range,
			    uint64_t *addr)
{
	uint64_t first = region_page(region, range.start);
	uint64_t end = region_page(region, range.end);
	uint64_t page = bitmap_find_set(&region->populated, first, end);

	if (page < end &&
	    region->extents[region_extent(region, region_addr(region, page))] &
		    EXTENT_ARMED) {
		*addr = region_addr(region, page);
		return true;
	}
	for (size_t i = region_extent(region, range.start);
	     i <= region_extent(region, range.end - 1); i++) {
		if (!(region->extents[i] & EXTENT_ARMED))
			continue;
		*addr = max_u64(range.start,
				region_extent_range(region, i).start);
		return true;
	}
	return false;
}

int capture_is_registered(struct capture *capture, unsigned space,
			  struct range range)
{
	uint64_t at = range.start, addr;
	struct region *region;
	struct range part;

	while ((region = space_next(capture->spaces[space], &at, range.end,
				    &part))) {
		int r;

		if (!region->registered ||
		    !find_armed_page(region, part, &addr))
			continue;
		addr = ROUND_DOWN(addr, region->desc.page_size);
		r = uffd_protect(
			region->space->desc.uffd,
			(struct range){ addr, addr + region->desc.page_size });
		if (r)
			return r == -ENOENT ? 0 : r;
	}
	return 1;
}

/* Whether what is protected and no page shows as such. */
static bool tells_holes(const struct capture *capture,
			const struct region *region)
{
	return (!capture->config.markers || !capture->has_swap) &&
	       region->desc.fd < 0 && !region->desc.shared &&
	       !region_is_hugetlb(region);
}

static int look_once_more(struct capture *capture, struct region *region,
			  struct range range)
{
	if (region_has_file(region))
		return look_everywhere(capture, region, range);
	bitmap_clear_range(&region->populated, region_page(region, range.start),
			   region_page(region, range.end));
	return find_populated(capture, region, range, capture->config.markers);
}

/* What was discarded or moved away before the instant may be a hole by now, of
 * which nothing is to be captured, or be missed. */
static int look_at_removed(struct capture *capture, struct region *region)
{
	uint64_t n = region_n_pages(region), first = 0, end;
	int r = 0;

	if (!region_has_file(region) && !tells_holes(capture, region))
		return 0;
	for (; !r && (first = bitmap_find_set(&region->removed, first, n)) < n;
	     first = end) {
		end = bitmap_find_clear(&region->removed, first, n);
		r = look_once_more(capture, region,
				   (struct range){ region_addr(region, first),
						   region_addr(region, end) });
	}
	return r;
}

static uint64_t count_pages(const struct capture *capture)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < capture->n_regions; i++) {
		struct range rest = capture->regions[i]->desc.range;
		struct region_part part;

		while (region_next_part(capture->regions[i], &rest, &part))
			n += range_len(part.range) / PAGE_SIZE;
	}
	return n;
}

static int protect_children(struct capture *capture)
{
	int r;

	pthread_mutex_lock(&capture->layout);
	r = children_protect(capture);
	pthread_mutex_unlock(&capture->layout);
	return r;
}

int capture_rearm(struct capture *capture)
{
	enum capture_mode note = MODE_NOTE, hold = MODE_HOLD;
	uint64_t n;
	int r = 0;

	/* Unless it has failed meanwhile. */
	atomic_compare_exchange_strong(&capture->mode, &note, MODE_HOLD);
	capture->is_taken = true;
	fault_thread_sync(capture);

	r = INJECT("rearm");
	for (unsigned i = 0; !r && i < capture->n_regions; i++)
		r = note_removed(capture, capture->regions[i]);
	if (!r)
		r = protect_noted_everywhere(capture, &n);
	INJECT_INTO(r, "rearm-noted-done");
	for (unsigned i = 0; !r && i < capture->n_regions; i++)
		r = look_at_removed(capture, capture->regions[i]);
	for (unsigned i = 0; !r && i < capture->n_regions; i++)
		if (capture->regions[i]->registered)
			r = arm_new_extents(capture, capture->regions[i]);
	if (!r)
		r = arm_new_regions(capture);
	INJECT_INTO(r, "rearm-regions-done");
	if (!r)
		r = protect_children(capture);
	if (r)
		return capture_fail(capture, r);
	capture->n_rearmed = n;
	capture->n_total = count_pages(capture);
	atomic_compare_exchange_strong(&capture->mode, &hold, MODE_CAPTURE);
	fault_thread_wake(capture);
	INJECT_HERE("rearm-done");
	return 0;
}
