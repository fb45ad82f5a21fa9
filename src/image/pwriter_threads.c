/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/pwriter_internal.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "sys/caps.h"

static void *pool_main(void *data)
{
	struct pwriter_pool *pool = data;

	/* Descriptors are all that it needs. One that it could not give up is
	 * one that it had before. */
	caps_reduce(NULL, 0);
	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct pwriter_job *job = pool->queued;
		ssize_t n;

		if (!job && pool->stop)
			break;
		if (!job) {
			pthread_cond_wait(&pool->changed, &pool->lock);
			continue;
		}
		pool->queued = job->next;
		if (!pool->queued)
			pool->queued_end = &pool->queued;
		pthread_mutex_unlock(&pool->lock);

		n = pwrite(job->fd, job->buf, job->len, (off_t)job->offset);
		job->result = n < 0 ? -errno : (int)n;

		pthread_mutex_lock(&pool->lock);
		job->next = pool->ended;
		pool->ended = job;
		pthread_cond_broadcast(&pool->changed);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static void pool_stop(struct pwriter *writer)
{
	struct pwriter_pool *pool = &writer->pool;

	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->n_threads; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->changed);
	pthread_mutex_destroy(&pool->lock);
}

static int pool_start(struct pwriter *writer, unsigned depth)
{
	struct pwriter_pool *pool = &writer->pool;
	sigset_t all, old;
	int r = 0;

	(void)depth;
	*pool = (struct pwriter_pool){};
	pool->queued_end = &pool->queued;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->changed, NULL);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (!r && pool->n_threads < PWRITER_THREADS) {
		r = -pthread_create(&pool->threads[pool->n_threads], NULL,
				    pool_main, pool);
		pool->n_threads += !r;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pool->n_threads)
		return 0;
	pool_stop(writer);
	return r;
}

static int pool_submit(struct pwriter *writer, struct pwriter_job *job)
{
	struct pwriter_pool *pool = &writer->pool;

	pthread_mutex_lock(&pool->lock);
	job->next = NULL;
	*pool->queued_end = job;
	pool->queued_end = &job->next;
	pthread_cond_broadcast(&pool->changed);
	pthread_mutex_unlock(&pool->lock);
	return 0;
}

static int pool_wait(struct pwriter *writer, struct pwriter_job **job,
		     int *result)
{
	struct pwriter_pool *pool = &writer->pool;

	pthread_mutex_lock(&pool->lock);
	while (!pool->ended)
		pthread_cond_wait(&pool->changed, &pool->lock);
	*job = pool->ended;
	pool->ended = (*job)->next;
	*result = (*job)->result;
	pthread_mutex_unlock(&pool->lock);
	return 0;
}

const struct pwriter_ops pwriter_threads_ops = {
	.name = "threads",
	.start = pool_start,
	.submit = pool_submit,
	.wait = pool_wait,
	.stop = pool_stop,
};
