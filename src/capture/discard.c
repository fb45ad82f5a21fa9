/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Memory that is discarded while it is captured. Who calls madvise(2) to that
 * end waits until the event of it has been read, and its pages stay until then.
 * So they are captured first. The event cannot be looked at without being read;
 * but the caller can: /proc shows it asleep in the system call, with the range.
 *
 * The kernel hands out faults before events, and events in the order in which
 * they came. While faults are pending, only as many messages are read: no
 * event is among them. When none is, and yet there is something to read, an
 * event is first in line. Whoever caused it sleeps by now, and is found; then
 * one message is read, which is that event.
 *
 * Reading an event wakes all who wait for theirs, for a moment; and who runs
 * cannot be looked at. So where there may have been more than one, the next is
 * read once no thread runs, or most likely none but those that compute.
 *
 * While an event is in line the kernel lets nobody unprotect anything. Nothing
 * here does; and whoever owns a block marks it as done before it tries to.
 *
 * The same is done for shared memory that mremap(2) maps a second time.
 *
 * Not found is who discards by another way: process_madvise(2) of another
 * process, io_uring; or who unmaps, whose pages are gone before the event
 * comes. For them the look at what an event has hit remains, in fault.c.
 */

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys/procfs.h"
#include "sys/uffd.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* 5.7 */
#endif

/*
 * How long to look for who caused an event, while threads run: who was woken
 * may have to wait for a processor. Whoever writes waits, too, meanwhile. When
 * somebody was found, who is in line behind has most likely been seen before.
 */
#define PATIENCE_NS	  2000000
#define PATIENCE_ALONE_NS 10000000

static bool discards(const struct proc_syscall *call)
{
	if (call->nr != SYS_madvise)
		return false;
	switch ((int)call->args[2]) {
	case MADV_DONTNEED:
	case MADV_FREE:
	case MADV_REMOVE:
#ifdef MADV_DONTNEED_LOCKED
	case MADV_DONTNEED_LOCKED:
#endif
		return true;
	default:
		return false;
	}
}

/* Whether it may be what an event waits for. */
static bool changes_mappings(const struct proc_syscall *call)
{
	switch (call->nr) {
	case SYS_mmap:
	case SYS_munmap:
	case SYS_mremap:
	case SYS_brk:
	case SYS_shmat:
	case SYS_shmdt:
		return true;
	default:
		return discards(call);
	}
}

/* Its pages, and where else they are mapped: a hole in a file is everywhere. */
static int secure(struct capture *capture, struct space *space,
		  struct range range)
{
	struct filler *filler = &capture->faults.filler;
	uint64_t at = range.start;
	struct region *region;
	struct range hit;
	int r = 0;

	while (!r && (region = space_next(space, &at, range.end, &hit))) {
		r = take_range(capture, region, hit, filler);
		if (!r)
			r = alias_take(capture, region, hit, filler);
	}
	return r;
}

/* Whether shared memory, if it is that, is mapped twice after this: through the
 * one mapping that is not protected it is changed unseen. */
static bool maps_twice(const struct proc_syscall *call)
{
	return call->nr == SYS_mremap &&
	       (!call->args[1] || call->args[3] & MREMAP_DONTUNMAP);
}

static int secure_file(struct capture *capture, struct space *space,
		       uint64_t addr)
{
	struct region *region;
	struct range hit;

	region = space_next(space, &addr, addr + 1, &hit);
	if (!region || !region->desc.shared)
		return 0;
	return alias_take_file(capture, region, &capture->faults.filler);
}

static int secure_call(struct capture *capture, struct space *space,
		       const struct proc_syscall *call)
{
	struct range range = { ROUND_DOWN(call->args[0], PAGE_SIZE) };

	if (maps_twice(call))
		return secure_file(capture, space, range.start);
	if (!discards(call) ||
	    __builtin_add_overflow(call->args[0], call->args[1], &range.end))
		return 0;
	return secure(capture, space, range);
}

struct look {
	unsigned n_found;   /* asleep in a call that changes mappings */
	unsigned n_running; /* of whom nothing is known */
};

/* At all threads; 0 or the code to fail with. */
static int look(struct capture *capture, struct space *space, int proc_fd,
		struct look *seen)
{
	_cleanup_free_ pid_t *tids = NULL;
	size_t n = 0;
	int r = 0;

	*seen = (struct look){};
	if (procfs_read_threads(proc_fd, &tids, &n))
		return 0;
	for (size_t i = 0; !r && i < n; i++) {
		struct proc_syscall call;
		int e = procfs_read_syscall(proc_fd, tids[i], &call);

		seen->n_running += e == -EAGAIN;
		if (e || !changes_mappings(&call))
			continue;
		seen->n_found++;
		r = secure_call(capture, space, &call);
	}
	return r;
}

static bool is_enough(const struct space *space, const struct look *seen,
		      uint64_t waited_ns)
{
	if (!seen->n_running)
		return true;
	if (!seen->n_found)
		return waited_ns > PATIENCE_ALONE_NS;
	return !space->crowded || waited_ns > PATIENCE_NS;
}

static int secure_discards(struct capture *capture, struct space *space)
{
	_cleanup_close_ int proc_fd = procfs_open(space->desc.pid);
	uint64_t began_ns = now_ns();
	struct look seen;
	int r = 0;

	/* Until there is none: it was a fault, which is answered. */
	while (!r && proc_fd >= 0 && uffd_is_readable(space->desc.uffd)) {
		r = look(capture, space, proc_fd, &seen);
		if (is_enough(space, &seen, now_ns() - began_ns))
			break;
		if (!r)
			uffd_wait_for_change();
	}
	return r;
}

void discard_open(struct space *space)
{
	space->info_fd = uffd_open_info(space->desc.uffd);
}

/* Whether an event is the next to be read: there is something, and no fault. A
 * fault may come between two of the looks, but hardly go, too. */
static bool event_is_next(struct space *space)
{
	if (uffd_is_readable(space->desc.uffd))
		return uffd_count_pending(space->info_fd) == 0;
	space->crowded = false;
	return false;
}

size_t discard_prepare_read(struct capture *capture, struct space *space,
			    size_t max, bool *events)
{
	int n, r;

	*events = true;

	if (space->info_fd < 0 || atomic_load(&capture->mode) != MODE_CAPTURE ||
	    atomic_load(&capture->all_taken))
		return max;
	n = uffd_count_pending(space->info_fd);
	if (n < 0)
		return max;
	*events = n == 0;
	if (n > 0)
		return min_u64((uint64_t)n, max);
	if (!event_is_next(space))
		return 0;
	r = secure_discards(capture, space);
	/* Whatever happened: its caller must not wait for ever. What has moved
	 * is looked at again once that is known. */
	if (r && r != -EAGAIN)
		capture_fail(capture, r);
	n = uffd_count_pending(space->info_fd);
	return n > 0 ? min_u64((uint64_t)n, max) : (size_t)event_is_next(space);
}

void discard_event_read(struct space *space)
{
	space->crowded = uffd_is_readable(space->desc.uffd);
}
