/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the files of capture/ share. Who writes what:
 *
 *   regions[].desc, granule, n_extents   before arming only
 *   regions[].extents, populated         the caller's thread (arm, rearm)
 *   regions[].noted, removed             fault thread sets, caller clears
 *   regions[].todo, done                 anyone, atomically
 *   mode                                 the caller
 *   verdict                              anyone; the first failure stays
 */

#include <pthread.h>
#include <stdatomic.h>

#include "capture/capture.h"

enum capture_mode {
	/* Armed, not yet frozen: a fault unprotects and notes. */
	MODE_NOTE,
	/* Frozen, while noted pages are protected again: a fault waits, since
	 * its block may have pages that are not protected yet. */
	MODE_HOLD,
	/* From the freeze on: a fault captures. */
	MODE_CAPTURE,
	/* Given up, or all is captured: a fault unprotects. */
	MODE_RELEASE,
};

/* A write fault between being read and being served. */
struct waiting_fault {
	uint64_t addr;
	uint64_t read_ns;
};

struct fault_thread {
	pthread_t thread;
	bool running;
	int wake_fd; /* eventfd: look at the requests below */
	pthread_mutex_t lock;
	pthread_cond_t answered;
	uint64_t n_asked, n_answered;
	bool stop;

	struct waiting_fault *waiting; /* from next_waiting on: to be served */
	size_t next_waiting, n_waiting, max_waiting;
	struct slab *slab; /* being filled */
	struct histogram latency, queue;
	_Atomic uint64_t n_pages;
};

struct capture {
	struct capture_config config;
	struct region *regions; /* by number */
	unsigned n_regions;
	unsigned *by_address;  /* region numbers, ascending by address */
	struct slab_pool pool; /* from arming on */
	bool has_pool;
	_Atomic enum capture_mode mode;
	_Atomic int verdict;
	bool armed; /* something may be registered */

	struct fault_thread faults;
	pthread_t output;
	bool output_running;

	uint64_t n_noted, n_rearmed;
	uint64_t n_scanned; /* pages */
	_Atomic uint64_t n_written;
	uint64_t n_populated;
	uint64_t started_ns, reported_ns; /* progress */
};

/* The region that holds `addr`, or NULL. */
struct region *capture_find_region(struct capture *capture, uint64_t addr);

static inline unsigned region_number(const struct capture *capture,
				     const struct region *region)
{
	return (unsigned)(region - capture->regions);
}

/* Records the first failure and ends all waiting. Returns the verdict. */
int capture_fail(struct capture *capture, int error);

/*
 * Copies the populated pages of `range`, of blocks that the caller owns and has
 * not released, to `slab`, which must have room, and makes sure that they are
 * what they were at the instant. Logs, and returns the code to fail with.
 */
int capture_copy(struct capture *capture, struct region *region,
		 struct range range, struct slab *slab);

/* Logs why a copy of `range` failed, and returns the code to fail with. */
int capture_copy_failed(struct capture *capture, struct range range, int error);

/* Tries to become the owner of a block. */
static inline bool region_claim(struct region *region, uint64_t block)
{
	return bitmap_test_and_clear(&region->todo, block);
}

/* Logs that the target is gone; returns -ESRCH. */
int capture_target_died(const struct capture *capture);

/* Calls back with the progress if it is time for that. */
void capture_report(struct capture *capture);

/* For whoever waits for another thread, which may be waiting for the sink: sees
 * what ends the capture, and reports. 0 or the verdict. */
int capture_look_around(struct capture *capture);

/* When to do that next, by CLOCK_REALTIME. */
struct timespec capture_next_look(void);

/* fault.c */
int fault_thread_start(struct capture *capture);
/*
 * Returns once all events read before have been dealt with, by the mode in
 * force then, and what they captured is queued.
 */
void fault_thread_sync(struct capture *capture);
/* Has it look at the mode again; does not wait. */
void fault_thread_wake(struct capture *capture);
void fault_thread_stop(struct capture *capture);

/* scan.c: captures every block that is left. */
int scan_all(struct capture *capture);

/* output.c */
int output_start(struct capture *capture);
/* Waits for its end, reporting progress. */
void output_join(struct capture *capture);
