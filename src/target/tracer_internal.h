/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* What the files of the tracer share. All but `lock` and what it guards (job,
 * result, quit, release) belongs to the tracing thread while a job runs. */

#include <pthread.h>
#include <stdatomic.h>

#include "sys/sched.h"
#include "target/tracer.h"

typedef int (*job_fn)(struct tracer *tracer);

struct process {
	const struct target *target;
	pid_t *tids; /* that are known, ascending */
	size_t n_tids;
};

struct tracer {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	job_fn job; /* what is to be done; NULL: nothing */
	int result;
	bool quit;
	bool holding; /* the thread is in tracer_hold(), or about to be */
	bool joined;

	struct process *processes;
	size_t n_processes;
	struct tracer_thread *threads; /* seized */
	size_t n_threads, max_threads;
	uint64_t max_ns, patience_ns, began_ns;
	uint64_t since_ns; /* nobody stood before */
	bool somebody_stands;
	struct sched_before before;

	struct tracer_holder holder;
	_Atomic bool release; /* no call is to be held any more */
};

/* tracer_hold.c. Has all threads run on, to their next system call; they stood.
 */
void tracer_begin_hold(struct tracer *tracer);
/* Watches all system calls, until `release`. */
void tracer_hold(struct tracer *tracer);

/* Has the tracing thread look around, if it waits. */
void tracer_wake(struct tracer *tracer);

/* A thread that is traced from now on; 0 or -ENOMEM. */
int tracer_add_thread(struct tracer *tracer, unsigned process, pid_t tid);

/* tracer_late.c. Says of threads, by their indices, that did not stop in `ms`
 * why; the code to fail with. */
int tracer_say_late(const struct tracer *tracer, const size_t *late, size_t n,
		    uint64_t ms);

/* When to try again, by CLOCK_REALTIME: in a millisecond. */
struct timespec tracer_soon(void);
