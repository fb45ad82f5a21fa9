/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bench.h"

/*
 * What one write fault costs the target: the engine against the least that this
 * kernel allows, a thread that reads an event, copies, and unprotects. Both
 * serve the same child, in turn. The scanner does not run.
 */

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/sched.h"
#include "sys/uffd.h"
#include "sys/vmio.h"

#define MAX_FAULTS 4000
#define MAX_ROUNDS 32

struct bare {
	struct target *target;
	int uffd;
	size_t n, granule;
	uint8_t *buffer; /* of all of it, touched */
};

static void *bare_main(void *data)
{
	struct bare *bare = data;
	struct target *target = bare->target;
	uint8_t *to = bare->buffer;

	sched_raise();
	for (size_t i = 0; i < bare->n; i++, to += bare->granule) {
		struct uffd_msg msg;
		struct range range;
		int r;

		need(read(bare->uffd, &msg, sizeof(msg)) == sizeof(msg));
		range.start =
			ROUND_DOWN(msg.arg.pagefault.address, bare->granule);
		range.end = range.start + bare->granule;
		if (target->memfd >= 0)
			r = pread(target->memfd, to, bare->granule,
				  (off_t)(range.start - target->addr)) < 0;
		else
			r = vm_read(target->pid, range.start, to,
				    bare->granule);
		need(!r);
		need(!uffd_unprotect(bare->uffd, range));
	}
	return NULL;
}

/* Both return p50, and p99 in *p99, as the target sees it. */
static double run_bare(struct target *target, size_t n, size_t granule,
		       uint8_t *buffer, double *p99)
{
	struct range all = { target->addr, target->addr + target->len };
	struct bare bare = { target, target_open_uffd(target, false), n,
			     granule, buffer };
	const uint64_t *ns;
	pthread_t thread;
	size_t n_ns;

	need(!uffd_register_wp(bare.uffd, all));
	need(!uffd_protect(bare.uffd, all));
	need(!pthread_create(&thread, NULL, bare_main, &bare));
	target_begin_writes(target, n, granule);
	target_end_writes(target, &ns, &n_ns);
	pthread_join(thread, NULL);
	close(bare.uffd);
	*p99 = quantile_us(ns, n_ns, 0.99);
	return quantile_us(ns, n_ns, 0.5);
}

static double run_engine(struct target *target, size_t n, size_t granule,
			 double *p99)
{
	struct capture *capture = target_capture(target, granule, 768 * MIB);
	const uint64_t *ns;
	size_t n_ns;

	need(!capture_arm(capture));
	need(!capture_rearm(capture));
	target_begin_writes(target, n, granule);
	target_end_writes(target, &ns, &n_ns);
	capture_free(capture);
	*p99 = quantile_us(ns, n_ns, 0.99);
	return quantile_us(ns, n_ns, 0.5);
}

static void compare(enum target_kind kind, size_t granule)
{
	size_t rounds = min_u64(bench_env("BENCH_ROUNDS", 5), MAX_ROUNDS);
	size_t len = bench_env("BENCH_MIB", 512) * MIB;
	size_t n = min_u64(len / granule, MAX_FAULTS);
	double engine[MAX_ROUNDS], engine99[MAX_ROUNDS];
	double bare[MAX_ROUNDS], bare99[MAX_ROUNDS], ratio[MAX_ROUNDS];
	struct target target;
	uint8_t *buffer;

	len = ROUND_UP(n * granule, PMD_SIZE);
	target_start(&target, kind, len);
	/* Huge, as the engine's own buffers are. */
	buffer = aligned_alloc(PMD_SIZE, len);
	need(buffer);
	madvise(buffer, len, MADV_HUGEPAGE);
	madvise(buffer, len, MADV_POPULATE_WRITE);
	for (size_t i = 0; i < rounds; i++) {
		bare[i] = run_bare(&target, n, granule, buffer, &bare99[i]);
		engine[i] = run_engine(&target, n, granule, &engine99[i]);
		ratio[i] = engine[i] / bare[i];
	}
	free(buffer);
	target_stop(&target);
	printf("%-6s %5zu %10.1f %10.1f %10.1f %10.1f %10.2f\n",
	       target_kind_names[kind], granule / KIB, median(bare, rounds),
	       median(bare99, rounds), median(engine, rounds),
	       median(engine99, rounds), median(ratio, rounds));
	fflush(stdout);
}

int main(void)
{
	printf("us for one write        bare                 engine\n");
	printf("%-6s %5s %10s %10s %10s %10s %10s\n", "memory", "KiB", "p50",
	       "p99", "p50", "p99", "p50 ratio");
	for (size_t granule = 4 * KIB; granule <= 256 * KIB; granule *= 8) {
		compare(TARGET_SMALL, granule);
		compare(TARGET_MEMFD, granule);
	}
	compare(TARGET_SMALL, 64 * KIB);
	compare(TARGET_SMALL, PMD_SIZE);
	compare(TARGET_HUGE, PMD_SIZE);
	return 0;
}
