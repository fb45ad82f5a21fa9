/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the whole machine stood still: a virtual machine whose host gives it no
 * processor, because its quota is used up or others are before it, runs nothing
 * at all for tens of milliseconds. That is nobody's doing here, and has to be
 * told from what a dump does.
 *
 *	stalls
 *
 * One thread for each processor, before everything else that there is, wakes
 * up each NAP_NS. Where it is late by more than LATE_NS, its processor has run
 * nothing else either but what the kernel cannot interrupt. At SIGTERM: a line
 * each, "stall CPU START_NS END_NS", CLOCK_MONOTONIC. The machine has stood
 * when all processors did at once.
 */

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#define NS_PER_S   INT64_C(1000000000)
#define NAP_NS	   500000
#define LATE_NS	   500000
#define STALLS_MAX 65536

struct stall {
	int64_t start, end; /* CLOCK_MONOTONIC, ns */
};

struct watcher {
	pthread_t thread;
	int cpu;
	size_t n_stalls;
	struct stall stalls[STALLS_MAX];
};

static atomic_bool stop;

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void *watch(void *arg)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	struct watcher *w = arg;
	int64_t due;

	while (!atomic_load(&stop) && w->n_stalls < STALLS_MAX) {
		int64_t now;

		due = now_ns() + NAP_NS;
		nanosleep(&nap, NULL);
		now = now_ns();
		if (now - due > LATE_NS)
			w->stalls[w->n_stalls++] = (struct stall){ due, now };
	}
	return NULL;
}

static int start(struct watcher *w)
{
	struct sched_param highest = {
		.sched_priority = sched_get_priority_max(SCHED_FIFO),
	};
	pthread_attr_t attr;
	cpu_set_t cpus;
	int r;

	CPU_ZERO(&cpus);
	CPU_SET(w->cpu, &cpus);
	pthread_attr_init(&attr);
	pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
	pthread_attr_setschedparam(&attr, &highest);
	r = pthread_create(&w->thread, &attr, watch, w);
	pthread_attr_destroy(&attr);
	return r;
}

int main(void)
{
	struct watcher *watchers;
	cpu_set_t cpus;
	sigset_t end;
	int n = 0, r, signal;

	/* Whoever started it does not come to an end without it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &end, NULL);

	sched_getaffinity(0, sizeof(cpus), &cpus);
	watchers = calloc((size_t)CPU_COUNT(&cpus), sizeof(*watchers));
	if (!watchers)
		return EXIT_FAILURE;
	mlockall(MCL_CURRENT | MCL_FUTURE);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &cpus))
			continue;
		watchers[n].cpu = cpu;
		r = start(&watchers[n++]);
		if (r) {
			fprintf(stderr, "stalls: processor %d: %s\n", cpu,
				strerror(r));
			return EXIT_FAILURE;
		}
	}
	printf("watching %d\n", n);
	fflush(stdout);

	sigwait(&end, &signal);
	atomic_store(&stop, true);
	for (int i = 0; i < n; i++) {
		pthread_join(watchers[i].thread, NULL);
		for (size_t k = 0; k < watchers[i].n_stalls; k++)
			printf("stall %d %" PRId64 " %" PRId64 "\n",
			       watchers[i].cpu, watchers[i].stalls[k].start,
			       watchers[i].stalls[k].end);
	}
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}
