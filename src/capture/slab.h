/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Buffers between capture and output. All memory that captured pages may take
 * is allotted at start, as slabs of one huge page each. A slab is owned by who
 * took it from the pool until it is queued, then by the output thread until it
 * is put back.
 *
 *   free --slab_pool_get()--> filled --slab_queue()--> queued
 *     ^                                                  |
 *     +---------hold_put()--------- written <--slab_next()+
 *
 * The scanner leaves the last slabs to the fault thread, so that the target is
 * not made to wait for the disk before all memory is used up.
 *
 * The first touch of a slab's memory costs more than the copy into it, by how
 * much only measuring tells: 0.15 ms where the kernel has pages at hand, 5 ms
 * in a virtual machine whose host has to find them, while a fast disk gives a
 * used slab back every millisecond. Some are touched at start; of these warm
 * ones, too, the scanner leaves a share alone. When they have run out and slabs
 * come back more quickly than they could be touched, whoever needs one waits,
 * the fault thread only for a little; else it touches a new one, and of that no
 * more than is needed at once: the target waits meanwhile.
 *
 * Any thread may call any function.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hold.h"
#include "base/util.h"

#define SLAB_SIZE     PMD_SIZE
#define SLAB_SEGMENTS PMD_PAGES

/* A run of captured pages within a slab's data. */
struct segment {
	unsigned region;
	uint64_t first; /* page of the region */
	uint64_t n;	/* pages */
};

struct slab {
	struct hold hold; /* by who still writes its data */
	struct slab_pool *pool;
	struct slab *next;
	uint8_t *data;	/* SLAB_SIZE bytes; segments follow one another */
	size_t touched; /* bytes of it, from the start */
	size_t used;
	size_t n_segments;
	struct segment segments[SLAB_SEGMENTS];
};

struct slab_pool {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint8_t *memory;
	struct slab *slabs;
	size_t n_slabs;
	size_t n_reserved;	  /* for the fault thread alone */
	struct slab *warm, *cold; /* free; last in, first out */
	size_t n_warm, n_cold;
	size_t min_free;
	size_t n_touched;
	size_t n_out;		  /* queued or being written */
	uint64_t touch_ns;	  /* what the first touch of a slab takes */
	uint64_t back_ns;	  /* between slabs that come back */
	uint64_t back_since_ns;	  /* the last one, or since some are out */
	struct slab *head, *tail; /* queued */
	bool closed;		  /* no more will be queued */
	bool failed;		  /* nobody waits any more */
};

/* `bytes` is rounded down to whole slabs, of which there are at least 8. */
int slab_pool_init(struct slab_pool *pool, uint64_t bytes);
void slab_pool_deinit(struct slab_pool *pool);

/*
 * An empty slab, waiting for one; NULL once the pool has failed. `reserved`
 * lets the caller have the last ones. slab_touch() comes next.
 */
struct slab *slab_get(struct slab_pool *pool, bool reserved, uint64_t n_pages);

/* The same, but gives up after `max_ns`, too. */
struct slab *slab_get_within(struct slab_pool *pool, bool reserved,
			     uint64_t n_pages, uint64_t max_ns);

/* Sees to it that the next `n_pages` of the caller's slab have been touched. */
void slab_touch(struct slab_pool *pool, struct slab *slab, uint64_t n_pages);

/* Queues a slab for output. An empty one goes straight back. */
void slab_queue(struct slab_pool *pool, struct slab *slab);

/*
 * The next slab to write; NULL when closed and empty, or failed. With `wait`
 * false also NULL when there is none yet. It comes with one reference on its
 * hold; the last release puts it back.
 */
struct slab *slab_next(struct slab_pool *pool, bool wait);

/* Whether whoever needs a slab now has to wait for it, or to touch one. */
bool slab_pool_is_short(struct slab_pool *pool);

/* Says that no more slabs will be queued. */
void slab_pool_close(struct slab_pool *pool);

/* Ends all waiting: something has gone wrong and the snapshot is given up. */
void slab_pool_fail(struct slab_pool *pool);

/* The most memory that was in use at once, in bytes. */
uint64_t slab_pool_peak(struct slab_pool *pool);

/* Room left, in pages. */
static inline uint64_t slab_room(const struct slab *slab)
{
	return (SLAB_SIZE - slab->used) / PAGE_SIZE;
}
