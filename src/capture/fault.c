/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Theory of operation. The thread sleeps in poll() on the userfaultfd and on
 * an eventfd. Each message names a page that a thread of the target waits to
 * write; what is done with it depends on the mode (internal.h). Whatever goes
 * wrong, the page is unprotected in the end: a snapshot can be discarded, a
 * waiting target cannot.
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
 * reads on, whatever comes, before it tries again.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/log.h"
#include "base/result.h"
#include "sys/sched.h"
#include "sys/uffd.h"

#define BATCH 64

static int read_messages(struct capture *capture);

static int release(struct capture *capture, struct range range)
{
	int uffd = capture->config.uffd, r;

	while ((r = uffd_try_unprotect(uffd, range)) == -EAGAIN) {
		r = read_messages(capture);
		if (r < 0)
			capture_fail(capture, r);
		if (r <= 0)
			uffd_wait_for_change();
	}
	/* Not registered any more: unmapped, or moved; or all is over. */
	if (r == -ENOENT || r == -ESRCH)
		return 0;
	return r;
}

static int note_write(struct capture *capture, struct region *region,
		      uint64_t addr)
{
	size_t extent = region_extent(region, addr);
	struct range range = { addr, addr + PAGE_SIZE };
	int r;

	if (region->extents[extent] & EXTENT_HUGE)
		range = region_extent_range(region, extent);
	r = release(capture, range);
	bitmap_set_range(&region->noted, region_page(region, range.start),
			 region_page(region, range.end));
	return r;
}

/* The fault thread's slab, with room for `n` pages; NULL: all is over. */
static struct slab *slab_for(struct capture *capture, uint64_t n)
{
	struct fault_thread *faults = &capture->faults;

	if (faults->slab && slab_room(faults->slab) < n) {
		slab_queue(&capture->pool, faults->slab);
		faults->slab = NULL;
	}
	if (!faults->slab)
		faults->slab = slab_get(&capture->pool, true);
	return faults->slab;
}

static int capture_block(struct capture *capture, struct region *region,
			 struct range range)
{
	uint64_t n = bitmap_count(&region->populated,
				  region_page(region, range.start),
				  region_page(region, range.end));
	struct slab *slab;
	int r;

	if (!n)
		return 0;
	slab = slab_for(capture, n);
	if (!slab)
		return -ECANCELED;
	r = capture_copy(capture, region, range, slab);
	if (r)
		return r;
	atomic_fetch_add(&capture->faults.n_pages, n);
	return 0;
}

static int capture_write(struct capture *capture, struct region *region,
			 uint64_t addr)
{
	struct block block = region_block(region, addr);
	int r = 0, released;

	if (region_claim(region, block.number)) {
		r = capture_block(capture, region, block.range);
		if (!r)
			bitmap_test_and_set(&region->done, block.number);
	} else if (!bitmap_test(&region->done, block.number)) {
		return 0; /* its owner will release it */
	}
	released = release(capture, block.range);
	return r ? r : released;
}

static int handle_write(struct capture *capture, uint64_t addr)
{
	struct region *region;

	addr = ROUND_DOWN(addr, PAGE_SIZE);
	region = capture_find_region(capture, addr);
	if (!region)
		return log_errno(-EPROTO,
				 "pid %d: a fault at %#llx is in no region",
				 capture->config.pid, (unsigned long long)addr);

	switch (atomic_load(&capture->mode)) {
	case MODE_NOTE:
		return note_write(capture, region, addr);
	case MODE_CAPTURE:
		return capture_write(capture, region, addr);
	case MODE_HOLD:
	case MODE_RELEASE:
		break;
	}
	return release(capture, region_block(region, addr).range);
}

/* Pages that exist and are not yet captured are lost: discarded, unmapped. */
static int handle_removal(struct capture *capture, struct range gone)
{
	for (unsigned i = 0; i < capture->n_regions; i++) {
		struct region *region = &capture->regions[i];
		struct range hit = {
			max_u64(gone.start, region->desc.range.start),
			min_u64(gone.end, region->desc.range.end),
		};
		struct block block;

		if (hit.start >= hit.end)
			continue;
		if (atomic_load(&capture->mode) == MODE_NOTE) {
			/* Their protection goes with them, but not before
			 * their event is read, nor at any known time: it can
			 * be given again only in the freeze. */
			bitmap_set_range(&region->removed,
					 region_page(region, hit.start),
					 region_page(region, hit.end));
			continue;
		}
		for (uint64_t at = hit.start; at < hit.end;
		     at = block.range.end) {
			size_t extent = region_extent(region, at);

			block = region_block(region, at);
			if (!(region->extents[extent] & EXTENT_ARMED) ||
			    bitmap_test(&region->done, block.number) ||
			    !bitmap_count(&region->populated,
					  region_page(region, at),
					  region_page(region, block.range.end)))
				continue;
			return capture_copy_failed(
				capture, (struct range){ at, hit.end },
				-ENOENT);
		}
	}
	return 0;
}

static int handle_change(struct capture *capture, const struct uffd_msg *msg)
{
	struct range range;

	if (atomic_load(&capture->mode) == MODE_RELEASE)
		return 0;
	switch (msg->event) {
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		range = (struct range){ msg->arg.remove.start,
					msg->arg.remove.end };
		break;
	case UFFD_EVENT_REMAP:
		range = (struct range){ msg->arg.remap.from,
					msg->arg.remap.from +
						msg->arg.remap.len };
		break;
	default:
		return 0;
	}
	return handle_removal(capture, range);
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

/* Reads a batch: faults go to the list, changes of the address space are dealt
 * with at once. How many messages there were, or -errno. */
static int read_messages(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;
	struct uffd_msg msgs[BATCH];
	uint64_t now;
	int n, r;

	r = make_room(faults);
	if (r)
		return r;
	n = uffd_read(capture->config.uffd, msgs, BATCH);
	now = now_ns();
	for (int i = 0; i < n; i++) {
		if (msgs[i].event == UFFD_EVENT_PAGEFAULT) {
			faults->waiting[faults->n_waiting++] =
				(struct waiting_fault){
					msgs[i].arg.pagefault.address, now
				};
			continue;
		}
		r = handle_change(capture, &msgs[i]);
		if (r)
			capture_fail(capture, r);
	}
	return n;
}

static void serve(struct capture *capture, const struct waiting_fault *fault)
{
	struct fault_thread *faults = &capture->faults;
	uint64_t started_ns = now_ns();
	int r = handle_write(capture, fault->addr);

	if (r) {
		capture_fail(capture, r);
		/* Never leave a writer behind. */
		handle_write(capture, fault->addr);
	}
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

static void handle_messages(struct capture *capture)
{
	int n;

	do {
		n = read_messages(capture);
		if (n < 0)
			capture_fail(capture, n);
		serve_waiting(capture);
	} while (n == BATCH);
}

/* Answers who waits in fault_thread_sync(). Returns whether to go on. */
static bool answer_requests(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;
	eventfd_t ignored;
	bool stop;

	eventfd_read(faults->wake_fd, &ignored);
	if (faults->slab) {
		slab_queue(&capture->pool, faults->slab);
		faults->slab = NULL;
	}
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
	struct pollfd fds[] = {
		{ .fd = capture->config.uffd, .events = POLLIN },
		{ .fd = faults->wake_fd, .events = POLLIN },
	};

	/* Each µs here is one that the target waits. */
	sched_raise();

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[0].revents & POLLIN)
			handle_messages(capture);
		else if (fds[0].revents)
			fds[0].fd = -1; /* POLLERR: the target is gone */
		if (fds[1].revents) {
			serve_waiting(capture);
			if (!answer_requests(capture))
				return NULL;
		}
	}
}

int fault_thread_start(struct capture *capture)
{
	struct fault_thread *faults = &capture->faults;
	sigset_t all, old;
	int r;

	faults->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (faults->wake_fd < 0)
		return log_errno(-errno, "eventfd: %m");
	pthread_mutex_init(&faults->lock, NULL);
	pthread_cond_init(&faults->answered, NULL);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&faults->thread, NULL, fault_main, capture);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return log_errno(r, "cannot start the fault thread: %m");
	faults->running = true;
	return 0;
}

void fault_thread_wake(struct capture *capture)
{
	eventfd_write(capture->faults.wake_fd, 1);
}

static void ask(struct capture *capture, bool stop)
{
	struct fault_thread *faults = &capture->faults;
	uint64_t request;

	pthread_mutex_lock(&faults->lock);
	request = ++faults->n_asked;
	faults->stop = stop;
	eventfd_write(faults->wake_fd, 1);
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

	if (faults->running) {
		ask(capture, true);
		pthread_join(faults->thread, NULL);
		faults->running = false;
		pthread_cond_destroy(&faults->answered);
		pthread_mutex_destroy(&faults->lock);
	}
	free(faults->waiting);
	faults->waiting = NULL;
	close_fd(&faults->wake_fd);
}
