/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/slab.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define SLABS_MIN 8

/* The fault thread's share: enough for a burst, while the scanner, which can
 * only use what is left, still keeps the disk busy. */
#define RESERVED_SHARE 4

/* How long to touch slabs for before anything is captured. The first are had
 * in any case. */
#define WARM_UP_NS  (50 * 1000000ull)
#define WARM_UP_MIN SLABS_MIN

static uint64_t thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/*
 * Gives a slab its memory up to `end`; returns what that would take for all of
 * it, other threads' turns not counted. Where it fails pages come when needed.
 * No huge pages: in a virtual machine they are what it has given back to its
 * host, and take five times as long to be had again.
 */
static uint64_t touch(struct slab *slab, size_t end)
{
	uint64_t start_ns = thread_cpu_ns();
	size_t len = end - slab->touched;

	madvise(slab->data + slab->touched, len, MADV_POPULATE_WRITE);
	slab->touched = end;
	return (thread_cpu_ns() - start_ns) * SLAB_SIZE / len;
}

/* Slabs come back in bursts. */
#define LATE_FACTOR 4

/* The newest of a series of times counts as much as all before it. */
static void average(uint64_t *average_ns, uint64_t ns)
{
	*average_ns = *average_ns ? (*average_ns + ns) / 2 : ns;
}

static void push(struct slab **list, size_t *n, struct slab *slab)
{
	slab->next = *list;
	*list = slab;
	++*n;
}

static struct slab *pop(struct slab **list, size_t *n)
{
	struct slab *slab = *list;

	*list = slab->next;
	--*n;
	return slab;
}

int slab_pool_init(struct slab_pool *pool, uint64_t bytes)
{
	size_t n = (size_t)max_u64(bytes / SLAB_SIZE, SLABS_MIN);
	uint64_t start_ns = now_ns();
	pthread_mutexattr_t lock_attr;
	pthread_condattr_t attr;
	uint8_t *memory;

	*pool = (struct slab_pool){};
	memory = mmap(NULL, (n + 1) * SLAB_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	pool->slabs = calloc(n, sizeof(*pool->slabs));
	if (!pool->slabs) {
		munmap(memory, (n + 1) * SLAB_SIZE);
		return -ENOMEM;
	}
	/* Else a holder that lost its processor would hold up the fault
	 * thread, however high its priority: 100 ms were seen. */
	pthread_mutexattr_init(&lock_attr);
	pthread_mutexattr_setprotocol(&lock_attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&pool->lock, &lock_attr);
	pthread_mutexattr_destroy(&lock_attr);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool->changed, &attr);
	pthread_condattr_destroy(&attr);
	pool->memory = memory;
	pool->n_slabs = n;
	pool->n_reserved = n / RESERVED_SHARE;
	for (size_t i = 0; i < n; i++) {
		struct slab *slab = &pool->slabs[i];

		slab->data = (uint8_t *)ROUND_UP((uintptr_t)memory, SLAB_SIZE) +
			     i * SLAB_SIZE;
		slab->pool = pool;
		if (i < WARM_UP_MIN || (i < pool->n_reserved &&
					now_ns() - start_ns < WARM_UP_NS)) {
			average(&pool->touch_ns, touch(slab, SLAB_SIZE));
			push(&pool->warm, &pool->n_warm, slab);
		} else {
			push(&pool->cold, &pool->n_cold, slab);
		}
	}
	pool->n_touched = pool->n_warm;
	pool->min_free = n;
	return 0;
}

void slab_pool_deinit(struct slab_pool *pool)
{
	if (!pool->memory)
		return;
	munmap(pool->memory, (pool->n_slabs + 1) * SLAB_SIZE);
	free(pool->slabs);
	pthread_cond_destroy(&pool->changed);
	pthread_mutex_destroy(&pool->lock);
	*pool = (struct slab_pool){};
}

/* A free slab for the caller, or NULL. */
static struct slab *take(struct slab_pool *pool, bool reserved, bool cold)
{
	size_t keep = reserved ? 0 : pool->n_reserved;
	size_t keep_warm = reserved ? 0 : pool->n_touched / RESERVED_SHARE;

	if (pool->n_warm + pool->n_cold <= keep)
		return NULL;
	if (pool->n_warm > keep_warm)
		return pop(&pool->warm, &pool->n_warm);
	if (!cold || !pool->n_cold)
		return NULL;
	pool->n_touched++;
	return pop(&pool->cold, &pool->n_cold);
}

/*
 * Until when it is better to wait for a slab to come back than to touch as much
 * as is needed of a cold one. The scanner waits as long as some come back
 * faster than they could be touched, for whoever they are. The fault thread,
 * for which the target waits since `start_ns`, not if one is late.
 */
static uint64_t worth_waiting_until(const struct slab_pool *pool, bool reserved,
				    uint64_t n_pages, uint64_t start_ns)
{
	uint64_t touch_ns = pool->touch_ns;

	if (reserved)
		touch_ns = touch_ns * n_pages / SLAB_SEGMENTS;
	if (!pool->n_cold)
		return UINT64_MAX;
	if (!pool->n_out || pool->back_ns > touch_ns)
		return 0;
	if (!reserved)
		return pool->back_since_ns + touch_ns;
	return min_u64(pool->back_since_ns + touch_ns,
		       start_ns + LATE_FACTOR * pool->back_ns);
}

static void wait_until(struct slab_pool *pool, uint64_t deadline_ns)
{
	struct timespec deadline = {
		.tv_sec = (time_t)(deadline_ns / 1000000000),
		.tv_nsec = (long)(deadline_ns % 1000000000),
	};

	if (deadline_ns == UINT64_MAX)
		pthread_cond_wait(&pool->changed, &pool->lock);
	else
		pthread_cond_timedwait(&pool->changed, &pool->lock, &deadline);
}

/* `deadline_ns` UINT64_MAX: there is none. */
static struct slab *get(struct slab_pool *pool, bool reserved, uint64_t n_pages,
			uint64_t deadline_ns)
{
	uint64_t start_ns = now_ns();
	struct slab *slab = NULL;

	pthread_mutex_lock(&pool->lock);
	while (!pool->failed) {
		uint64_t now = now_ns();
		uint64_t until_ns =
			worth_waiting_until(pool, reserved, n_pages, start_ns);
		bool cold = now >= until_ns;

		slab = take(pool, reserved, cold);
		if (slab || now >= deadline_ns)
			break;
		wait_until(pool,
			   min_u64(deadline_ns, cold ? UINT64_MAX : until_ns));
	}
	if (pool->n_warm + pool->n_cold < pool->min_free)
		pool->min_free = pool->n_warm + pool->n_cold;
	pthread_mutex_unlock(&pool->lock);

	if (slab) {
		slab->used = 0;
		slab->n_segments = 0;
	}
	return slab;
}

struct slab *slab_get(struct slab_pool *pool, bool reserved, uint64_t n_pages)
{
	return get(pool, reserved, n_pages, UINT64_MAX);
}

struct slab *slab_get_within(struct slab_pool *pool, bool reserved,
			     uint64_t n_pages, uint64_t max_ns)
{
	return get(pool, reserved, n_pages, now_ns() + max_ns);
}

void slab_touch(struct slab_pool *pool, struct slab *slab, uint64_t n_pages)
{
	size_t end =
		(size_t)min_u64(slab->used + n_pages * PAGE_SIZE, SLAB_SIZE);
	uint64_t touch_ns;

	if (end <= slab->touched)
		return;
	touch_ns = touch(slab, end);
	pthread_mutex_lock(&pool->lock);
	average(&pool->touch_ns, touch_ns);
	pthread_mutex_unlock(&pool->lock);
}

static void put_back(struct slab_pool *pool, struct slab *slab)
{
	push(&pool->warm, &pool->n_warm, slab);
	pthread_cond_broadcast(&pool->changed);
}

void slab_queue(struct slab_pool *pool, struct slab *slab)
{
	pthread_mutex_lock(&pool->lock);
	if (!slab->used) {
		put_back(pool, slab);
	} else {
		if (!pool->n_out++)
			pool->back_since_ns = now_ns();
		slab->next = NULL;
		if (pool->tail)
			pool->tail->next = slab;
		else
			pool->head = slab;
		pool->tail = slab;
		pthread_cond_broadcast(&pool->changed);
	}
	pthread_mutex_unlock(&pool->lock);
}

static void put_released(struct hold *hold)
{
	struct slab *slab =
		(struct slab *)((char *)hold - offsetof(struct slab, hold));
	struct slab_pool *pool = slab->pool;
	uint64_t now = now_ns();

	pthread_mutex_lock(&pool->lock);
	average(&pool->back_ns, now - pool->back_since_ns);
	pool->back_since_ns = now;
	pool->n_out--;
	put_back(pool, slab);
	pthread_mutex_unlock(&pool->lock);
}

struct slab *slab_next(struct slab_pool *pool, bool wait)
{
	struct slab *slab = NULL;

	pthread_mutex_lock(&pool->lock);
	while (wait && !pool->failed && !pool->head && !pool->closed)
		pthread_cond_wait(&pool->changed, &pool->lock);
	if (!pool->failed && pool->head) {
		slab = pool->head;
		pool->head = slab->next;
		if (!pool->head)
			pool->tail = NULL;
	}
	pthread_mutex_unlock(&pool->lock);
	if (slab)
		hold_init(&slab->hold, put_released);
	return slab;
}

bool slab_pool_is_short(struct slab_pool *pool)
{
	bool is_short;

	pthread_mutex_lock(&pool->lock);
	is_short = !pool->n_warm && !pool->failed;
	pthread_mutex_unlock(&pool->lock);
	return is_short;
}

void slab_pool_close(struct slab_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->closed = true;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
}

void slab_pool_fail(struct slab_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->failed = true;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
}

uint64_t slab_pool_peak(struct slab_pool *pool)
{
	uint64_t peak;

	pthread_mutex_lock(&pool->lock);
	peak = (pool->n_slabs - pool->min_free) * SLAB_SIZE;
	pthread_mutex_unlock(&pool->lock);
	return peak;
}
