/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The capture engine: a target's memory as it was at one instant, taken while
 * the target runs on. A target is one process or several, *spaces*; what is
 * captured of them are *regions*.
 *
 *   capture_new, capture_add_space…, capture_add_region…
 *   capture_arm        target running: everything is write-protected; a write
 *                      only unprotects its page and notes it
 *   capture_settle     target running: noted pages are protected again, until
 *                      few are left
 *   capture_drop, capture_add_space, capture_add_region
 *                      target FROZEN: what has changed since arming
 *   capture_rearm      target FROZEN: the last noted pages; from here on
 *                      a write captures what it is about to change
 *   capture_run        target running again: until every page is captured
 *   capture_drain      until the sink has everything
 *   capture_free       at any point: protection is gone and everyone who
 *                      waited runs, whatever happened before
 *
 * Threads: the caller's, which also scans; a fault thread from arm to free,
 * which only reads events, copies, unprotects; an output thread, the only one
 * that waits for the sink. Functions are called from one thread, but for
 * capture_range_now().
 *
 * Errors are logged with the target's pid. RESULT_INCONSISTENT: pages were
 * gone before they could be captured. RESULT_UNSUPPORTED: memory that cannot
 * be protected. -ESRCH: the target died. -EINTR: interrupt_pending().
 */

#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/histogram.h"
#include "base/watch.h"
#include "capture/region.h"
#include "sys/heirs.h"

/*
 * Where captured pages go: each page of each region at most once, in any order;
 * pages that are never given are zero. All calls come from one thread. An error
 * fails the capture; the sink logs it.
 */
struct capture_sink {
	/* `data` is valid until the call returns, and as long as the sink has
	 * references on `hold`. */
	int (*put)(void *opaque, unsigned region, uint64_t first_page,
		   uint64_t n_pages, const void *data, struct hold *hold);
	/* Waits until a reference was released: 1; 0 when there is none, or
	 * -errno. NULL for a sink that never takes any. */
	int (*wait)(void *opaque);
	/* Releases all references, also after an error. NULL: as above. */
	void (*drain)(void *opaque);
	/* From any thread: the capture is over. A put() that waits for somebody
	 * who may never come, a reader, returns soon. NULL: none does. */
	void (*cancel)(void *opaque);
	void *opaque;
};

/* How far it is, for who waits. */
struct capture_progress {
	uint64_t pages_all;		/* that exist */
	uint64_t pages_captured;	/* of these */
	uint64_t pages_written;		/* given to the sink */
	uint64_t elapsed_ns;		/* since capture_run() */
	const struct histogram *faults; /* so far; histogram_copy() it */
};

typedef void (*capture_progress_fn)(void *opaque,
				    const struct capture_progress *progress);

#define CAPTURE_PROGRESS_NS 250000000

struct capture_config {
	/*
	 * The caller looks at the mappings again in the freeze: what cannot be
	 * registered while the target runs, since it has changed, is not an
	 * error before that.
	 */
	bool mappings_change;
	/*
	 * Regions lie in mappings that capture_register() was called for. To
	 * register a part of a mapping would split it, and calls such as
	 * mremap(2) fail on what are two: only whoever has stopped the target
	 * knows what a whole one is.
	 */
	bool registered_by_caller;
	bool markers;		/* the kernel has UFFD_FEATURE_WP_UNPOPULATED */
	uint64_t buffer_bytes;	/* at most; what exists may need less */
	uint64_t granule_bytes; /* power of two, 4 KiB … 2 MiB */
	struct capture_sink sink;
	/* Called every CAPTURE_PROGRESS_NS by the thread that runs and drains;
	 * may be NULL. */
	capture_progress_fn progress;
	void *progress_opaque;
	struct watch *watch; /* who keeps the target waiting; may be NULL */
	/* From before the userfaultfds were made. */
	struct heirs_mark born;
};

struct capture_stats {
	uint64_t pages_total;
	uint64_t pages_copied; /* given to the sink, zeros too */
	uint64_t pages_fault;  /* of these, by the fault thread */
	uint64_t noted_pages;
	uint64_t rearmed_pages;
	uint64_t peak_buffer_bytes;
	struct histogram faults; /* from reading an event to its release */
	struct histogram queue;	 /* from reading it to the start on it */
};

struct capture;

/* A process. */
struct capture_space {
	pid_t pid;
	int pidfd;	/* the caller's */
	int uffd;	/* initialised; taken */
	int pagemap_fd; /* the caller's */
	/* Its /proc/PID/mem, the caller's, for memory that it may not read at
	 * the moment; -1: there is none. */
	int mem_fd;
};

int capture_new(struct capture **out, const struct capture_config *config);
struct capture *capture_free(struct capture *capture);

static inline void capture_freep(struct capture **capture)
{
	*capture = capture_free(*capture);
}

#define _cleanup_capture_ _cleanup_(capture_freep)

struct watch *capture_get_watch(const struct capture *capture);

/*
 * Spaces are numbered from 0 on; returns the number or -errno. Takes the
 * userfaultfd in any case. Possible whenever regions may be added.
 */
int capture_add_space(struct capture *capture,
		      const struct capture_space *space);

/*
 * Regions are numbered in the order of these calls. They may come at any time
 * before capture_rearm(): before capture_arm(), which may be called again for
 * those that came since, or in the freeze, to be protected by capture_rearm().
 * -EINVAL when it overlaps another of the space; -EBUSY when it is too late.
 */
int capture_add_region(struct capture *capture, const struct region_desc *desc);

/* Where a region is, or was when it was added, and in which space. */
struct range capture_region_range(const struct capture *capture,
				  unsigned region, unsigned *space);

/*
 * In the freeze, before capture_rearm(): what was mapped in `range` is there no
 * more, or it is other memory than was armed. Nothing is captured of it; a
 * region that is hit keeps its numbering of pages. A region for what is there
 * now may be added.
 */
int capture_drop(struct capture *capture, unsigned space, struct range range);

/*
 * With registered_by_caller, while the target is stopped, in the freeze or
 * before: `range` is one mapping, all of it. What is registered already stays
 * so. capture_start() comes before: events are to be read. 0, or logged.
 */
int capture_register(struct capture *capture, unsigned space,
		     struct range range);

/*
 * Before anything is protected: whether nobody but us has one of the
 * userfaultfds. A child that was being forked when it was made may have, and
 * would keep the target protected if we were killed. 0; else logged:
 * RESULT_INCONSISTENT, then try again with others.
 */
int capture_check_heirs(const struct capture *capture);

/* Starts to read events. `n_bytes` that exist, about, choose the buffers. */
int capture_start(struct capture *capture, uint64_t n_bytes);

/*
 * In the freeze, before capture_rearm(): whether what one mapping, `range`, has
 * of armed memory is registered. It is not, though nobody told of a change,
 * where there was a hole when its region was registered. 1, 0, or -errno.
 */
int capture_is_registered(struct capture *capture, unsigned space,
			  struct range range);

/*
 * From any thread, between capture_rearm() and capture_drain(), while the
 * target's thread that wants to unmap `range`, or to exit, is held: captures
 * all of it that is not yet captured. It stays protected. Returns 0 when
 * nothing of the range can be lost any more, or why the capture has failed.
 * What maps the same file elsewhere is not captured by this.
 */
int capture_range_now(struct capture *capture, unsigned space,
		      struct range range);

/*
 * While the target runs. The buffers are chosen by what the first call finds.
 * Memory that goes or moves meanwhile is no error here, nor in
 * capture_settle(); if it has not been dropped by then, capture_rearm() fails.
 */
int capture_arm(struct capture *capture);
int capture_settle(struct capture *capture);
int capture_rearm(struct capture *capture);
int capture_run(struct capture *capture);
int capture_drain(struct capture *capture);

/* Valid once capture_drain() has returned 0. */
void capture_get_stats(struct capture *capture, struct capture_stats *stats);
