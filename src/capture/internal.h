/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the files of capture/ share. Who writes what:
 *
 *   spaces, regions, their index and parts   the caller's thread, before the
 *                                            capture begins; after that the
 *                                            fault thread; under `layout`
 *   region->granule, n_extents, extents, populated   the caller's thread,
 *                                            before the capture begins
 *   region->noted, removed                   fault thread sets, caller clears
 *   region->todo, done, wanted               anyone, atomically
 *   mode                                     the caller
 *   verdict                                  anyone; the first failure stays
 *
 * The fault thread holds `layout` for whatever it does in other modes than
 * MODE_CAPTURE. In that it alone changes what is there, and holds it only to do
 * so: what it looks at needs no lock. Others hold it to look.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

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

/* Addresses, and the region that has its pages there. */
struct piece {
	struct range range;
	struct region *region;
	uint64_t home; /* of range.start, as of region->desc.range */
};

struct range_list {
	struct range *ranges; /* of addresses */
	size_t n, max;
};

/* A process. */
struct space {
	struct capture_space desc;
	/* discard.c, the fault thread */
	int info_fd;	      /* -1: it cannot tell */
	bool crowded;	      /* several may wait for their events to be read */
	struct piece *pieces; /* ascending */
	size_t n_pieces, max_pieces;
	struct piece *unsettled; /* copies, which a move may prove wrong */
	size_t n_unsettled, max_unsettled;
	struct range_list owed;	  /* moves of shared memory: move.c */
	struct range_list passed; /* where what is captured came to */
	bool is_over;		  /* it has exited, and all of it is captured */
};

/* A write fault between being read and being served. */
struct waiting_fault {
	struct space *space;
	struct region *region; /* NULL: not looked up yet */
	uint64_t addr;	       /* with `region`, as of region->desc.range */
	uint64_t read_ns;
};

/* Copies of blocks: by whom, and to where. */
struct filler {
	struct slab *slab; /* being filled */
	bool reserved;	   /* may take the pool's last ones */
	bool looks_around; /* while it waits: the caller's thread */
	bool changes;	   /* the layout, and needs no lock: the fault thread */
	bool insists;	   /* the last copy was spoilt by a move */
	_Atomic uint64_t n_pages;
};

/* Who was forked meanwhile. */
struct child {
	int uffd;
	const struct space *space; /* the parent's */
};

struct children {
	struct child *list;
	size_t n, max;
	bool waited;	     /* when last looked at */
	uint64_t n_captured; /* at that time */
	uint64_t looked_ns;
};

struct fault_thread {
	pthread_t thread;
	bool running;
	int epoll_fd; /* all userfaultfds, and wake_fd with a NULL pointer */
	int wake_fd;  /* eventfd: look at the requests below */
	pthread_mutex_t lock;
	pthread_cond_t answered;
	uint64_t n_asked, n_answered;
	bool stop;
	struct children children;
	struct waiting_fault *again; /* what somebody owned, and does not now */
	size_t n_again, max_again;

	struct waiting_fault *waiting; /* from next_waiting on: to be served */
	size_t next_waiting, n_waiting, max_waiting;
	struct filler filler;
	struct histogram latency, queue;
};

/* A file that may be mapped more than once. */
struct shared_file {
	struct shared_file *next;
	uint64_t id;
	struct region **regions; /* that map some of it */
	unsigned n_regions, max_regions;
	bool has_new; /* since it was looked at as a whole */
};

struct capture {
	struct capture_config config;
	int hole_fd;		/* of filemap_open() */
	pthread_mutex_t layout; /* recursive */
	/* What of spaces is unsettled or passed; inside of `layout`. */
	pthread_mutex_t settle_lock;
	struct space **spaces; /* by number */
	unsigned n_spaces, max_spaces;
	struct region **regions; /* by number */
	unsigned n_regions, max_regions;
	unsigned n_armed; /* all before this are */
	struct shared_file *files;
	struct slab_pool pool; /* from arming on */
	bool has_pool;
	_Atomic enum capture_mode mode;
	_Atomic int verdict;
	_Atomic bool all_taken; /* no block is todo any more */
	bool has_swap;
	bool is_taken; /* the instant is over: no more regions */

	struct fault_thread faults;
	pthread_t output;
	bool output_running;
	struct filler scanner, scanner_aliases;
	pthread_mutex_t now_lock; /* capture_range_now() is under way */
	struct filler now;

	uint64_t n_noted, n_rearmed;
	_Atomic uint64_t n_written;
	uint64_t n_total, n_populated;	  /* pages, of the instant */
	uint64_t started_ns, reported_ns; /* progress */
};

/* layout.c */

/* The first piece of the space that ends behind `addr`, or NULL. */
struct piece *space_find(const struct space *space, uint64_t addr);

/*
 * The part of a region that is within [*at, end) of addresses, by the
 * region's own ones; moves *at behind it. NULL: there is none.
 */
struct region *space_next(const struct space *space, uint64_t *at, uint64_t end,
			  struct range *range);

/* During the capture. What was in `range` is gone, and captured. */
int space_forget(struct space *space, struct range range);

/* What was in `from` is at `to`, where nothing else is. */
int space_move(struct space *space, struct range from, uint64_t to);

void layout_deinit(struct capture *capture);

/* To call before and after what needs the layout, and is not the caller's
 * thread. Whether it had to be locked. */
static inline bool layout_lock(struct capture *capture)
{
	if (atomic_load(&capture->mode) == MODE_CAPTURE)
		return false;
	pthread_mutex_lock(&capture->layout);
	return true;
}

static inline void layout_unlock(struct capture *capture, bool locked)
{
	if (locked)
		pthread_mutex_unlock(&capture->layout);
}

/* Records the first failure and ends all waiting. Returns the verdict. */
int capture_fail(struct capture *capture, int error);

/* Logs why a copy of `range` failed, and returns the code to fail with. */
int capture_copy_failed(const struct region *region, struct range range,
			int error);

/* Tries to become the owner of a block. */
static inline bool region_claim(struct region *region, uint64_t block)
{
	return bitmap_test_and_clear(&region->todo, block);
}

static inline void range_list_deinit(struct range_list *list)
{
	free(list->ranges);
}

/* region.c */

/* The addresses of `run`, which is in or behind part *i of the place, go to the
 * end of `remote`, which has *n. */
void region_add_remote(const struct region_place *place, size_t *i,
		       struct range run, struct range *remote, size_t *n);

/* Reads them from the target, one behind another: 0, -ENOENT or -errno. */
int region_read(const struct region *region, const struct range *remote,
		size_t n, uint8_t *to);

/* file.c: the file behind a region, if there is one */

int file_init(struct region *region, int hole_fd);
void file_deinit(struct region *region);

/* Marks as populated what the file has now. */
void file_find_populated(struct region *region, struct range range);

/* Copies populated pages, all of `run`, of a shared mapping. 0; -ENOENT: some
 * of them have gone; -errno. */
int file_copy(const struct region *region, struct range run, uint8_t *to);

/* The same for the populated pages of `range`, one extent at most, that a
 * private mapping shows. */
int file_copy_private(const struct region *region, struct range range,
		      const struct region_place *place, uint8_t *to);

/* own.c: huge pages of a private mapping, where they are not the file's */

/* Whether it may have such pages. */
bool own_is_watched(const struct region *region);

int own_init(struct region *region);
void own_deinit(struct region *region);

/* Before the capture: looks which there are, and which hold something. 0,
 * -ESRCH or -errno. */
int own_find(struct region *region, struct range range);

/*
 * Whether `copy`, which is all of `part` of a huge page, is of the page of the
 * instant. `own`: it was copied as the mapping's own; `backed`: the file had a
 * page. 0; -ENOENT: that page is lost; -errno.
 */
int own_check(const struct region *region, struct region_part part, bool own,
	      bool backed, const uint8_t *copy);

/* alias.c */
int alias_add(struct capture *capture, struct region *region);
void alias_deinit(struct capture *capture);

/*
 * What a write to `range` changes, too: the next other region from *i on that
 * maps some of it, and where. NULL: no more.
 */
struct region *alias_next(const struct region *region, struct range range,
			  unsigned *i, struct range *hit);

/* Pages that exist here exist in all that map them. Before the capture. */
void alias_set_populated(struct region *region, struct range range);

/* Captures all that the file has, in all that map it. As take_range(). */
int alias_take_file(struct capture *capture, struct region *region,
		    struct filler *filler);

/* Whether some of the file is not captured where `range` maps it, too; or, with
 * `all`, anywhere. */
bool alias_is_left(struct region *region, struct range range, bool all);

/*
 * To call before `range` is released: whoever writes to it then changes the
 * others. As take_range().
 */
int alias_take(struct capture *capture, struct region *region,
	       struct range range, struct filler *filler);

/* Logs that the target is gone; returns -ESRCH. */
int capture_target_died(const struct space *space);

/* 0, or -ESRCH, logged, when the process is gone and something of it is not
 * captured. The caller's thread. */
int capture_check_alive(struct capture *capture, struct space *space);

/* Pages, so far. */
uint64_t capture_count(struct capture *capture);

/* Calls back with the progress if it is time for that. */
void capture_report(struct capture *capture);

/* For whoever waits for another thread, which may be waiting for the sink: sees
 * what ends the capture, and reports. 0 or the verdict. */
int capture_look_around(struct capture *capture);

/* take.c */

/* Waits until something that has changed is known. */
typedef void (*wait_fn)(struct capture *capture, struct space *space);

/*
 * Gives up the protection of part of a region, wherever it is. What is not
 * registered any more is passed over; 0 also when the process is gone. `wait`
 * is the fault thread's; NULL: any other.
 */
int take_release(struct capture *capture, const struct region *region,
		 struct range range, wait_fn wait);

/* A slab with room for `n` pages. -ECANCELED: all is over. */
int filler_make_room(struct capture *capture, struct filler *filler,
		     uint64_t n);

/* Has what the filler holds written. */
void filler_queue(struct capture *capture, struct filler *filler);

/* Ends the ownership of blocks that could not be copied yet. */
void take_back(struct capture *capture, struct region *region,
	       struct range range);

/* Copies a block that the caller owns, and marks it as done. -EAGAIN: it was
 * moved meanwhile, and is owned no more. */
int take_block(struct capture *capture, struct region *region,
	       const struct block *block, struct filler *filler);

/*
 * Sees to it that no page of `range` can be lost any more: captures it, or
 * waits for who does. It stays protected. The caller owns no block that is not
 * done, else two could wait for each other. 0, the code to fail with, or, in
 * the fault thread, -EAGAIN: an event is to be read first.
 */
int take_range(struct capture *capture, struct region *region,
	       struct range range, struct filler *filler);

/* When to do that next, by CLOCK_REALTIME. */
struct timespec capture_next_look(void);

/* copy.c */

/*
 * Copies the populated pages of `range`, of blocks that the caller owns and has
 * not released, to the filler's slab, which must have room, and makes sure that
 * they are what they were at the instant. Logs, and returns the code to fail
 * with; or -EAGAIN: some of it has moved.
 */
int capture_copy(struct capture *capture, struct region *region,
		 struct range range, struct filler *filler);

/* 0 or -ENOMEM. */
int range_list_add(struct range_list *list, struct range range);

/*
 * Under `settle_lock`, and `layout` but for the fault thread: since the former
 * was taken all that had changed was known. 0, or, logged, the code to
 * fail with.
 */
int copy_settle(struct space *space);

/* The fault thread, when it has read all: looks for a moment in which nobody
 * changes mappings. Fails the capture. */
void copy_try_settle(struct capture *capture, struct space *space);

/* Once all is captured: until it is known to be right. As copy_settle(). */
int copy_settle_all(struct capture *capture);

/* holes.c */

/*
 * While the target runs, and where the kernel has no markers: pages of `range`
 * that do not exist come to be, so that they can be protected. 0, or, logged,
 * the code to fail with.
 */
int holes_fill(const struct capture *capture, const struct region *region,
	       struct range range);

/* move.c: the fault thread, under `layout`, in MODE_CAPTURE, when it has read
 * that memory was moved or unmapped. 0, or, logged, the code to fail with. */
int move_follow(struct capture *capture, struct space *space, struct range from,
		uint64_t to);
int move_unmap(struct capture *capture, struct space *space,
	       struct range range);

/* Logs that shared memory can be changed unseen; returns the code. */
int move_mapped_twice(const struct space *space, uint64_t addr);

/* The first block of `range` that has pages which nobody has captured; false:
 * there is none. */
bool move_find_lost(const struct region *region, struct range range,
		    uint64_t *lost);

/* children.c */

/* Under `layout`: a child was forked. Takes its userfaultfd. 0, or, logged, the
 * code to fail with. */
int children_add(struct capture *capture, const struct space *space, int uffd);

/* In the instant, under `layout`: from here on they cannot write to what is
 * shared. As above. */
int children_protect(struct capture *capture);

/* The fault thread, now and then: tells whoever watches us when some wait and
 * the capture does not get on. */
void children_watch(struct capture *capture);

/* They go on. */
void children_release(struct capture *capture);

/* discard.c */

/* Once its userfaultfd is known. */
void discard_open(struct space *space);

/*
 * The fault thread, which owns no block that is not done, before it reads
 * messages: how many of `max` it may read now, so that none tells of pages that
 * are yet to be captured. Whether events may be among them. May capture, or
 * fail the capture.
 */
size_t discard_prepare_read(struct capture *capture, struct space *space,
			    size_t max, bool *events);

/* An event was read. */
void discard_event_read(struct space *space);

/* fault.c */
int fault_thread_init(struct capture *capture);
void fault_thread_deinit(struct capture *capture);
int fault_thread_start(struct capture *capture);
/*
 * Returns once all events read before have been dealt with, by the mode in
 * force then, and what they captured is queued.
 */
void fault_thread_sync(struct capture *capture);
/* Has it serve the faults in a block once more; any thread. */
void fault_thread_again(struct capture *capture, struct region *region,
			struct range block);
/* Has it look at the mode again; does not wait. */
void fault_thread_wake(struct capture *capture);
void fault_thread_stop(struct capture *capture);

/* scan.c: captures every block that is left. */
int scan_all(struct capture *capture);

/* output.c */
int output_start(struct capture *capture);
/* Waits for its end, reporting progress. */
void output_join(struct capture *capture);
