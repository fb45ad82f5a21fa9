/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Theory of operation. The thread sleeps in epoll on the userfaultfds of all
 * spaces and on an eventfd. Each message names a page that a thread of the
 * target waits to write; what is done with it depends on the mode (internal.h).
 * Whatever goes wrong, the page is unprotected in the end: a snapshot can be
 * discarded, a waiting target cannot.
 *
 * Noting: the page is unprotected first and noted after that. The caller, who
 * protects noted pages again, clears the note before protecting. So a note
 * that it misses belongs to a page that it has not protected, and stays.
 *
 * Messages may be stale: two threads fault on a page, the first message
 * releases both, the second arrives when the page is captured, or noted again.
 * Releasing twice does no harm, and is done for every block but one that
 * somebody is copying: its owner will release it.
 *
 * While a thread of the target changes mappings (madvise, munmap), the kernel
 * refuses to unprotect until its event has been read, and this thread is who
 * reads. So faults are read into a list first, and a release that is refused
 * reads on, whatever comes, before it tries again. What is about to be
 * discarded is captured before its event is read: see discard.c. Memory that
 * was moved: see move.c.
 *
 * It says that it is there each time it has done something, and when it has
 * nothing to do (base/watch.h). What it says ends with the protection.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "sys/sched.h"
#include "sys/uffd.h"

#define BATCH  64
#define EVENTS 16

static int read_messages(struct capture *capture, struct space *space);

/* Somebody has changed mappings, of which the event is yet to be read. */
static void read_on(struct capture *capture, struct space *space)
{
	int r = read_messages(capture, space);

	if (r < 0)
		capture_fail(capture, r);
	if (r <= 0)
		uffd_wait_for_change();
}

static int release(struct capture *capture, struct region *region,
		   struct range range)
{
	return take_release(capture, region, range, read_on);
}

static int note_write(struct capture *capture, struct region *region,
		      uint64_t addr)
{
	size_t extent = region_extent(region, addr);
	struct range range = { addr, addr + PAGE_SIZE };
	struct region_part part;
	int r;

	if (region->extents[extent] & EXTENT_HUGE)
		range = region_extent_range(region, extent);
	r = INJECT("fault-note") ?: release(capture, region, range);
	while (region_next_part(region, &range, &part))
		bitmap_set_range(&region->noted,
				 region_page(region, part.range.start),
				 region_page(region, part.range.end));
	return r;
}

/* -EAGAIN: it has moved, or what shares its memory has; read on first. */
static int capture_write(struct capture *capture, struct region *region,
			 uint64_t addr)
{
	struct block block = region_block(region, addr);
	int r = 0, released;

	INJECT_HERE("fault-claim");
	if (region_claim(region, block.number)) {
		r = take_block(capture, region, &block,
			       &capture->faults.filler);
		INJECT_INTO(r, "fault-take-done");
	} else if (!bitmap_test(&region->done, block.number)) {
		/* Its owner will release it, or have it looked at again. */
		bitmap_test_and_set(&region->wanted, block.number);
		if (bitmap_test(&region->todo, block.number))
			return -EAGAIN;
		if (!bitmap_test(&region->done, block.number) &&
		    atomic_load(&capture->mode) == MODE_CAPTURE)
			return 0;
	}
	if (!r)
		r = alias_take(capture, region, block.range,
			       &capture->faults.filler);
	if (r == -EAGAIN)
		return r;
	/* Before the release, which may read on and wait for who owns a block:
	 * what has failed is never done. */
	if (r)
		capture_fail(capture, r);
	released = release(capture, region, block.range);
	INJECT_INTO(released, "fault-release-done");
	return r ? r : released;
}

/*
 * Nothing is known of the page but that somebody may wait for it: a fault that
 * came too late, or of memory that was moved there, which the kernel refuses to
 * unprotect until that is known.
 */
static int release_stray(struct space *space, uint64_t addr)
{
	struct range page = { addr, addr + PAGE_SIZE };
	int r = uffd_try_unprotect(space->desc.uffd, page);

	if (r == -ENOENT)
		uffd_wake(space->desc.uffd, page);
	return r == -ENOENT || r == -ESRCH ? 0 : r;
}

static int handle_write(struct capture *capture,
			const struct waiting_fault *fault)
{
	uint64_t at = ROUND_DOWN(fault->addr, PAGE_SIZE);
	struct range page = { at, at + PAGE_SIZE };
	struct region *region = fault->region;

	if (!region)
		region = space_next(fault->space, &at, page.end, &page);
	if (!region)
		return release_stray(fault->space, at);

	switch (atomic_load(&capture->mode)) {
	case MODE_NOTE:
		return note_write(capture, region, page.start);
	case MODE_CAPTURE:
		return capture_write(capture, region, page.start);
	case MODE_HOLD:
	case MODE_RELEASE:
		break;
	}
	return release(capture, region, region_block(region, page.start).range);
}

/* Their protection goes with them, but not before their event is read, nor at
 * any known time: it can be given again only in the freeze. */
static void note_removed(struct space *space, struct range gone)
{
	uint64_t at = gone.start;
	struct region *region;
	struct range hit;

	while ((region = space_next(space, &at, gone.end, &hit)))
		bitmap_set_range(&region->removed,
				 region_page(region, hit.start),
				 region_page(region, hit.end));
}

/* Pages that exist and are not yet captured are lost. */
static int handle_discard(struct space *space, struct range gone)
{
	uint64_t at = gone.start, lost;
	struct region *region;
	struct range hit;

	while ((region = space_next(space, &at, gone.end, &hit)))
		if (move_find_lost(region, hit, &lost))
			return capture_copy_failed(
				region, (struct range){ lost, hit.end },
				-ENOENT);
	return 0;
}

static int handle_removal(struct capture *capture, struct space *space,
			  uint8_t event, struct range range)
{
	if (atomic_load(&capture->mode) != MODE_CAPTURE) {
		note_removed(space, range);
		return 0;
	}
	return event == UFFD_EVENT_UNMAP ? move_unmap(capture, space, range)
					 : handle_discard(space, range);
}

/* Before the capture all is looked at again in the freeze. */
static int handle_move(struct capture *capture, struct space *space,
		       struct range from, uint64_t to)
{
	if (atomic_load(&capture->mode) == MODE_CAPTURE)
		return move_follow(capture, space, from, to);
	note_removed(space, from);
	note_removed(space, (struct range){ to, to + range_len(from) });
	return 0;
}

static int handle_change(struct capture *capture, struct space *space,
			 const struct uffd_msg *msg)
{
	if (msg->event == UFFD_EVENT_FORK)
		return children_add(capture, space, (int)msg->arg.fork.ufd);
	if (atomic_load(&capture->mode) == MODE_RELEASE)
		return 0;
	switch (msg->event) {
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		return handle_removal(capture, space, msg->event,
				      (struct range){ msg->arg.remove.start,
						      msg->arg.remove.end });
	case UFFD_EVENT_REMAP:
		return handle_move(capture, space,
				   (struct range){ msg->arg.remap.from,
						   msg->arg.remap.from +
							   msg->arg.remap.len },
				   msg->arg.remap.to);
	default:
		return 0;
	}
}

/* Room for a batch more of waiting faults. */
static int make_room(struct fault_thread *faults)
{
	struct waiting_fault *waiting;
	size_t max = faults->max_waiting * 2 + BATCH;

	if (faults->max_waiting - faults->n_waiting >= BATCH)
		return 0;
	waiting = reallocarray(faults->waiting, max, sizeof(*waiting));
	if (!waiting)
		return -ENOMEM;
	faults->waiting = waiting;
	faults->max_waiting = max;
	return 0;
}

static void handle_event(struct capture *capture, struct space *space,
			 const struct uffd_msg *msg)
{
	int r;

	discard_event_read(space);
	pthread_mutex_lock(&capture->layout);
	r = INJECT("fault-event") ?: handle_change(capture, space, msg);
	pthread_mutex_unlock(&capture->layout);
	if (r)
		capture_fail(capture, r);
}

/* Reads a batch: faults go to the list, changes of the address space are dealt
 * with at once. How many messages there were, or -errno. */
static int read_messages(struct capture *capture, struct space *space)
{
	struct fault_thread *faults = &capture->faults;
	struct uffd_msg msgs[BATCH];
	bool events;
	size_t max;
	uint64_t now;
	int n, r;

	r = INJECT("fault-read") ?: make_room(faults);
	if (r)
		return r;
	max = discard_prepare_read(capture, space, BATCH, &events);
	/* Nobody may see that an event was read, and not what it says. */
	if (events)
		pthread_mutex_lock(&capture->layout);
	n = max ? uffd_read(space->desc.uffd, msgs, max) : 0;
	now = now_ns();
	for (int i = 0; i < n; i++) {
		if (msgs[i].event != UFFD_EVENT_PAGEFAULT) {
			handle_event(capture, space, &msgs[i]);
			continue;
		}
		faults->waiting[faults->n_waiting++] = (struct waiting_fault){
			.space = space,
			.addr = msgs[i].arg.pagefault.address,
			.read_ns = now,
		};
	}
	if (events)
		pthread_mutex_unlock(&capture->layout);
	return n;
}

/* Until it is known where all is. */
static int serve_write(struct capture *capture,
		       const struct waiting_fault *fault)
{
	int r;

	while ((r = handle_write(capture, fault)) == -EAGAIN)
		read_on(capture, fault->space);
	return r;
}

static void serve(struct capture *capture, const struct waiting_fault *fault)
{
	struct fault_thread *faults = &capture->faults;
	uint64_t started_ns = now_ns();
	bool locked = layout_lock(capture);
	int r = serve_write(capture, fault);

	if (r) {
		capture_fail(capture, r);
		/* Never leave a writer behind. */
		serve_write(capture, fault);
	}
	layout_unlock(capture, locked);
	watch_beat(capture->config.watch, WATCH_FAULTS);
	if (atomic_load(&capture->mode) != MODE_CAPTURE)
		return;
	histogram_record(&faults->queue, started_ns - fault->read_ns);
	histogram_record(&faults->latency, now_ns() - fault->read_ns);
}

static void serve_waiting(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;

	while (faults->next_waiting < faults->n_waiting) {
		struct waiting_fault fault;

		if (atomic_load(&capture->mode) == MODE_HOLD)
			return;
		/* A copy: the list may grow, and move, meanwhile. */
		fault = faults->waiting[faults->next_waiting++];
		serve(capture, &fault);
	}
	faults->next_waiting = faults->n_waiting = 0;
}

static void handle_messages(struct capture *capture, struct space *space)
{
	int n;

	do {
		n = read_messages(capture, space);
		if (n < 0)
			capture_fail(capture, n);
		serve_waiting(capture);
	} while (n == BATCH);
	copy_try_settle(capture, space);
}

static void serve_again(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;
	struct waiting_fault fault;
	bool more;

	do {
		pthread_mutex_lock(&faults->lock);
		more = faults->n_again > 0;
		if (more)
			fault = faults->again[--faults->n_again];
		pthread_mutex_unlock(&faults->lock);
		if (more)
			serve(capture, &fault);
	} while (more);
}

/* Answers who waits in fault_thread_sync(). Returns whether to go on. */
static bool answer_requests(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;
	eventfd_t ignored;
	bool stop;

	eventfd_read(faults->wake_fd, &ignored);
	serve_again(capture);
	filler_queue(capture, &faults->filler);
	pthread_mutex_lock(&faults->lock);
	faults->n_answered = faults->n_asked;
	stop = faults->stop;
	pthread_cond_broadcast(&faults->answered);
	pthread_mutex_unlock(&faults->lock);
	return !stop;
}

static void *fault_main(void *data)
{
	struct capture *capture = data;
	struct fault_thread *faults = &capture->faults;

	/* Each µs here is one that the target waits. */
	sched_raise();

	for (;;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(faults->epoll_fd, events, EVENTS,
				   watch_beat_ms(capture->config.watch));
		bool woken = false;

		watch_beat(capture->config.watch, WATCH_FAULTS);
		children_watch(capture);
		for (int i = 0; i < n; i++) {
			struct space *space = events[i].data.ptr;

			if (!space)
				woken = true;
			else if (events[i].events & EPOLLIN)
				handle_messages(capture, space);
			else /* The process is gone. */
				epoll_ctl(faults->epoll_fd, EPOLL_CTL_DEL,
					  space->desc.uffd, NULL);
		}
		if (!woken)
			continue;
		serve_waiting(capture);
		if (!answer_requests(capture))
			return NULL;
	}
}

int fault_thread_init(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;
	struct epoll_event event = { .events = EPOLLIN };

	pthread_mutex_init(&faults->lock, NULL);
	pthread_cond_init(&faults->answered, NULL);
	faults->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	faults->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (faults->wake_fd < 0 || faults->epoll_fd < 0 ||
	    epoll_ctl(faults->epoll_fd, EPOLL_CTL_ADD, faults->wake_fd, &event))
		return log_errno(-errno, "eventfd, epoll: %m");
	return 0;
}

void fault_thread_deinit(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;

	free(faults->waiting);
	free(faults->again);
	close_fd(&faults->wake_fd);
	close_fd(&faults->epoll_fd);
	pthread_cond_destroy(&faults->answered);
	pthread_mutex_destroy(&faults->lock);
}

int fault_thread_start(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;
	sigset_t all, old;
	int r;

	watch_begin(capture->config.watch, WATCH_FAULTS);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = INJECT("fault-start");
	if (!r)
		r = -pthread_create(&faults->thread, NULL, fault_main, capture);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return log_errno(r, "cannot start the fault thread: %m");
	faults->running = true;
	return 0;
}

static int queue_again(struct fault_thread *faults, struct waiting_fault fault)
{
	size_t max = faults->max_again * 2 + BATCH;
	struct waiting_fault *again;

	if (faults->n_again == faults->max_again) {
		again = reallocarray(faults->again, max, sizeof(*again));
		if (!again)
			return -ENOMEM;
		faults->again = again;
		faults->max_again = max;
	}
	faults->again[faults->n_again++] = fault;
	return 0;
}

void fault_thread_again(struct capture *capture, struct region *region,
			struct range block)
{
	struct fault_thread *faults = &capture->faults;
	int r;

	pthread_mutex_lock(&faults->lock);
	r = queue_again(faults, (struct waiting_fault){
					.space = region->space,
					.region = region,
					.addr = block.start,
					.read_ns = now_ns(),
				});
	pthread_mutex_unlock(&faults->lock);
	if (r)
		capture_fail(capture, r);
	fault_thread_wake(capture);
}

static void wake(struct fault_thread *faults)
{
	while (eventfd_write(faults->wake_fd, 1) && errno == EINTR)
		;
}

void fault_thread_wake(struct capture *capture)
{
	wake(&capture->faults);
}

static void ask(struct capture *capture, bool stop)
{
	struct fault_thread *faults = &capture->faults;
	uint64_t request;

	pthread_mutex_lock(&faults->lock);
	request = ++faults->n_asked;
	faults->stop = stop;
	wake(faults);
	while (faults->n_answered < request) {
		struct timespec until = capture_next_look();

		if (pthread_cond_timedwait(&faults->answered, &faults->lock,
					   &until) != ETIMEDOUT)
			continue;
		/* It may need a buffer, and the sink have stalled. */
		if (atomic_load(&capture->mode) != MODE_CAPTURE)
			continue;
		pthread_mutex_unlock(&faults->lock);
		capture_look_around(capture);
		pthread_mutex_lock(&faults->lock);
	}
	pthread_mutex_unlock(&faults->lock);
}

void fault_thread_sync(struct capture *capture)
{
	if (capture->faults.running)
		ask(capture, false);
}

void fault_thread_stop(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;

	if (!faults->running)
		return;
	ask(capture, true);
	pthread_join(faults->thread, NULL);
	faults->running = false;
	/* All is captured, or given up: children go on. */
	children_release(capture);
}
