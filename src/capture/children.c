/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Children that are forked while memory is armed. What they have of their own
 * is none of ours; but what was mapped shared they could write to unseen. The
 * kernel gives us a userfaultfd of each. Where nothing is shared that is yet to
 * be captured, it is closed, which sets all of the child free. Else
 *
 *   - the child may write to what is its own at once; before the instant, to
 *     what is shared, too
 *   - in the instant, when the parent stands but a child may not, what is
 *     shared is protected in it as it is in the parent
 *   - from then on it waits when it writes to that, until all is captured.
 *
 * A child that changes its mappings meanwhile waits, too: nobody reads the
 * events of that.
 *
 * Under `layout`, and after the instant by the fault thread only.
 */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "sys/uffd.h"

/* How long a child may keep the parent standing by changing its mappings. */
#define CHANGE_TRIES 50

static bool is_shared_left(const struct region *region, bool all)
{
	uint64_t ignored;

	return region->desc.shared &&
	       (all || region->desc.guard ||
		move_find_lost(region, region->desc.range, &ignored));
}

static bool has_shared_left(const struct capture *capture,
			    const struct space *space, bool all)
{
	for (unsigned i = 0; i < capture->n_regions; i++)
		if (capture->regions[i]->space == space &&
		    is_shared_left(capture->regions[i], all))
			return true;
	return false;
}

typedef int (*memory_fn)(const struct capture *capture, int uffd,
			 struct range range);

/* Calls it with the child's mappings of what is shared, or of what is not. */
static int for_memory(const struct capture *capture, const struct child *child,
		      bool shared, memory_fn fn)
{
	int r = 0;

	for (unsigned i = 0; !r && i < capture->n_regions; i++) {
		const struct region *region = capture->regions[i];
		struct range rest = region->desc.range;
		struct region_part part;

		if (region->space != child->space ||
		    region->desc.shared != shared)
			continue;
		while (!r && region_next_part(region, &rest, &part))
			r = fn(capture, child->uffd,
			       (struct range){ part.addr,
					       part.addr +
						       range_len(part.range) });
	}
	return r;
}

/* A kernel without markers takes what lies in one mapping, and no more. */
static int do_all(const struct capture *capture, int uffd, struct range range,
		  uffd_range_fn fn)
{
	return capture->config.markers
		       ? fn(uffd, range)
		       : uffd_for_registered(uffd, range, PAGE_SIZE, fn);
}

/* Of what it cannot release the child waits until the end. */
static int release(const struct capture *capture, int uffd, struct range range)
{
	int r = do_all(capture, uffd, range, uffd_try_unprotect);

	return r == -ESRCH ? r : 0;
}

/* -ENOENT: some of it is not registered there, by whatever it did, or since it
 * was forked before that was; it may be written to unseen. */
static int protect(const struct capture *capture, int uffd, struct range range)
{
	int r;

	for (int i = 0; i < CHANGE_TRIES; i++) {
		r = do_all(capture, uffd, range, uffd_try_protect);
		if (r != -EAGAIN)
			return r;
		uffd_wait_for_change();
	}
	return r;
}

/* Where the first of what is shared is mapped. */
static bool find_shared_page(const struct capture *capture,
			     const struct space *space, struct range *page)
{
	for (unsigned i = 0; i < capture->n_regions; i++) {
		const struct region *region = capture->regions[i];
		struct range rest = region->desc.range;
		struct region_part part;

		if (region->space != space || !region->desc.shared ||
		    !region_next_part(region, &rest, &part))
			continue;
		*page = (struct range){ part.addr, part.addr + PAGE_SIZE };
		return true;
	}
	return false;
}

/* Whether it has exited, or has executed another program: the kernel tells when
 * a page is made what it is. */
static bool is_gone(const struct capture *capture, const struct child *child,
		    bool is_taken)
{
	uffd_range_fn set = is_taken ? uffd_try_protect : uffd_try_unprotect;
	struct range page;

	return find_shared_page(capture, child->space, &page) &&
	       set(child->uffd, page) == -ESRCH;
}

/* Forgets those. */
static void forget_gone(const struct capture *capture,
			struct children *children, bool is_taken)
{
	size_t n = 0;

	for (size_t i = 0; i < children->n; i++) {
		struct child *child = &children->list[i];

		if (is_gone(capture, child, is_taken))
			close_fd(&child->uffd);
		else
			children->list[n++] = *child;
	}
	children->n = n;
}

/* So that who forks all the time does not use up our descriptors. */
static int make_room(const struct capture *capture, struct children *children,
		     bool is_taken)
{
	size_t max = children->max * 2 + 16;
	struct child *list;

	if (children->n < children->max)
		return 0;
	forget_gone(capture, children, is_taken);
	if (children->n < children->max / 2)
		return 0;
	list = reallocarray(children->list, max, sizeof(*list));
	if (!list)
		return -ENOMEM;
	children->list = list;
	children->max = max;
	return 0;
}

int children_add(struct capture *capture, const struct space *space, int uffd)
{
	bool is_taken = atomic_load(&capture->mode) == MODE_CAPTURE;
	struct children *children = &capture->faults.children;
	_cleanup_close_ int fd = uffd;
	struct child child = { fd, space };
	int r;

	if (atomic_load(&capture->mode) == MODE_RELEASE ||
	    !has_shared_left(capture, space, !is_taken))
		return 0;
	r = make_room(capture, children, is_taken);
	if (r)
		return log_errno(r, "pid %d: its child: %m", space->desc.pid);
	r = for_memory(capture, &child, false, release);
	if (!r && !is_taken)
		r = for_memory(capture, &child, true, release);
	/* It has exited. */
	if (r)
		return 0;
	steal_fd(&fd);
	children->list[children->n++] = child;
	return 0;
}

int children_protect(struct capture *capture)
{
	struct children *children = &capture->faults.children;

	for (size_t i = 0; i < children->n; i++) {
		struct child *child = &children->list[i];
		int r = for_memory(capture, child, true, protect);

		if (!r || r == -ESRCH)
			continue;
		log_error(
			"pid %d: a child that it forked meanwhile changes what they share: %s; the snapshot is discarded",
			child->space->desc.pid, strerror(-r));
		return RESULT_INCONSISTENT;
	}
	return 0;
}

static bool any_waits(const struct children *children)
{
	for (size_t i = 0; i < children->n; i++) {
		struct pollfd fd = { .fd = children->list[i].uffd,
				     .events = POLLIN };

		if (poll(&fd, 1, 0) > 0 && fd.revents & POLLIN)
			return true;
	}
	return false;
}

/* They wait for all to be captured, for as long as that takes, unless it does
 * not get on. */
void children_watch(struct capture *capture)
{
	struct children *children = &capture->faults.children;
	struct watch *watch = capture->config.watch;
	uint64_t now = now_ns(), n_captured;
	bool waits;

	if (!watch || now < children->looked_ns + watch->beat_ns)
		return;
	children->looked_ns = now;
	waits = any_waits(children);
	n_captured = capture_count(capture);
	if (!waits)
		watch_end(watch, WATCH_CHILDREN);
	else if (!children->waited || n_captured != children->n_captured)
		watch_begin(watch, WATCH_CHILDREN);
	children->waited = waits;
	children->n_captured = n_captured;
}

void children_release(struct capture *capture)
{
	struct children *children = &capture->faults.children;

	watch_end(capture->config.watch, WATCH_CHILDREN);
	while (children->n)
		close_fd(&children->list[--children->n].uffd);
	free(children->list);
	*children = (struct children){};
}
