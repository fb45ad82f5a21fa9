/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/slab.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SLABS_MIN 8

/* The fault thread's share: enough for a burst, while the scanner, which can
 * only use what is left, still keeps the disk busy. */
#define RESERVED_SHARE 4

/*
 * Gives a slab its memory. Where this fails pages come when needed. No huge
 * pages: in a virtual machine they are what it has given back to its host, and
 * take five times as long to be had again.
 */
static void touch(struct slab *slab)
{
	madvise(slab->data, SLAB_SIZE, MADV_POPULATE_WRITE);
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
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->changed, NULL);
	pool->memory = memory;
	pool->n_slabs = n;
	pool->n_reserved = n / RESERVED_SHARE;
	for (size_t i = n; i-- > 0;) {
		struct slab *slab = &pool->slabs[i];

		slab->data = (uint8_t *)ROUND_UP((uintptr_t)memory, SLAB_SIZE) +
			     i * SLAB_SIZE;
		slab->pool = pool;
		if (i < pool->n_reserved) {
			touch(slab);
			push(&pool->warm, &pool->n_warm, slab);
		} else {
			push(&pool->cold, &pool->n_cold, slab);
		}
	}
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

struct slab *slab_get(struct slab_pool *pool, bool reserved)
{
	size_t keep = reserved ? 0 : pool->n_reserved;
	struct slab *slab = NULL;
	bool is_cold = false;

	pthread_mutex_lock(&pool->lock);
	while (!pool->failed && pool->n_warm + pool->n_cold <= keep)
		pthread_cond_wait(&pool->changed, &pool->lock);
	if (!pool->failed) {
		is_cold = pool->cold && pool->n_warm <= keep;
		slab = is_cold ? pop(&pool->cold, &pool->n_cold)
			       : pop(&pool->warm, &pool->n_warm);
		if (pool->n_warm + pool->n_cold < pool->min_free)
			pool->min_free = pool->n_warm + pool->n_cold;
	}
	pthread_mutex_unlock(&pool->lock);

	if (is_cold)
		touch(slab);
	if (slab) {
		slab->used = 0;
		slab->n_segments = 0;
	}
	return slab;
}

void slab_put(struct slab_pool *pool, struct slab *slab)
{
	pthread_mutex_lock(&pool->lock);
	push(&pool->warm, &pool->n_warm, slab);
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
}

void slab_queue(struct slab_pool *pool, struct slab *slab)
{
	if (!slab->used) {
		slab_put(pool, slab);
		return;
	}
	pthread_mutex_lock(&pool->lock);
	slab->next = NULL;
	if (pool->tail)
		pool->tail->next = slab;
	else
		pool->head = slab;
	pool->tail = slab;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
}

static void put_released(struct hold *hold)
{
	struct slab *slab =
		(struct slab *)((char *)hold - offsetof(struct slab, hold));

	slab_put(slab->pool, slab);
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
