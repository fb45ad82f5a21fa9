/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <liburing.h>
#include <pthread.h>

#include "image/pwriter.h"

/* One write, from submission to its end. */
struct pwriter_job {
	struct pwriter_job *next;
	int fd, fallback_fd;
	const void *buf;
	size_t len;
	uint64_t offset;
	struct hold *hold;
	int result; /* bytes or -errno */
};

/* What does the writing. `wait` is called only while jobs are under way, and
 * hands back each job that was submitted once, with its result. */
struct pwriter_ops {
	const char *name;
	int (*start)(struct pwriter *writer, unsigned depth);
	int (*submit)(struct pwriter *writer, struct pwriter_job *job);
	int (*wait)(struct pwriter *writer, struct pwriter_job **job,
		    int *result);
	void (*stop)(struct pwriter *writer); /* nothing is under way */
};

#define PWRITER_THREADS 2

struct pwriter_pool {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct pwriter_job *queued, **queued_end;
	struct pwriter_job *ended;
	bool stop;
	pthread_t threads[PWRITER_THREADS];
	unsigned n_threads;
};

struct pwriter {
	const struct pwriter_ops *ops;
	struct pwriter_job *jobs; /* `depth` of them */
	struct pwriter_job *free;
	unsigned n_under_way;
	int error;
	union {
		struct io_uring ring;
		struct pwriter_pool pool;
	};
};

extern const struct pwriter_ops pwriter_uring_ops;
extern const struct pwriter_ops pwriter_threads_ops;
