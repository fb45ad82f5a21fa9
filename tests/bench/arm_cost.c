/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bench.h"

/*
 * What arming costs: all of the memory, while the target runs; what was written
 * meanwhile, while it is frozen; and how many pages are left for that under
 * writes flat out.
 */

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/uffd.h"

static double ms_since(uint64_t began)
{
	return (double)(now_ns() - began) / 1e6;
}

static struct capture *new_capture(struct target *target)
{
	return target_capture(target, 256 * KIB, 64 * MIB);
}

static void protect_alone(struct target *target)
{
	struct range all = { target->addr, target->addr + target->len };
	int uffd = target_open_uffd(target, true);
	uint64_t began;

	need(!uffd_register_wp(uffd, all));
	began = now_ns();
	need(!uffd_protect(uffd, all));
	printf("%-6s %-44s %9.2f ms\n", target_kind_names[target->kind],
	       "UFFDIO_WRITEPROTECT of all", ms_since(began));
	close(uffd);
}

static void arm(struct target *target)
{
	struct capture *capture = new_capture(target);
	uint64_t began = now_ns();

	need(!capture_arm(capture));
	printf("%-6s %-44s %9.2f ms\n", target_kind_names[target->kind],
	       "capture_arm, with 64 MiB of buffers", ms_since(began));
	began = now_ns();
	need(!capture_rearm(capture));
	printf("%-6s %-44s %9.2f ms\n", target_kind_names[target->kind],
	       "capture_rearm, nothing written", ms_since(began));
	capture_free(capture);
}

static void rearm(struct target *target, size_t n)
{
	struct capture *capture = new_capture(target);
	const uint64_t *ns;
	uint64_t began;
	size_t n_ns;
	double ms;

	need(!capture_arm(capture));
	target_begin_writes(target, n, target->len / n / PAGE_SIZE * PAGE_SIZE);
	target_end_writes(target, &ns, &n_ns);
	began = now_ns();
	need(!capture_rearm(capture));
	ms = ms_since(began);
	printf("%-6s capture_rearm, %6zu pages written %13s %9.2f ms, %.2f us a page\n",
	       target_kind_names[target->kind], n, "", ms,
	       ms * 1e3 / (double)n);
	capture_free(capture);
}

static void settle_under_load(struct target *target)
{
	struct capture *capture = new_capture(target);
	struct capture_stats *stats = malloc(sizeof(*stats));
	uint64_t began;
	double arm_ms, settle_ms, rearm_ms;

	need(stats);
	target_begin_load(target);
	began = now_ns();
	need(!capture_arm(capture));
	arm_ms = ms_since(began);
	began = now_ns();
	need(!capture_settle(capture));
	settle_ms = ms_since(began);
	target_end_load(target);
	began = now_ns();
	need(!capture_rearm(capture));
	rearm_ms = ms_since(began);
	need(!capture_run(capture));
	need(!capture_drain(capture));
	capture_get_stats(capture, stats);
	printf("%-6s random writes: arm %.2f ms, settle %.2f ms (%llu pages noted in all), rearm %.2f ms (%llu pages)\n",
	       target_kind_names[target->kind], arm_ms, settle_ms,
	       (unsigned long long)stats->noted_pages, rearm_ms,
	       (unsigned long long)stats->rearmed_pages);
	free(stats);
	capture_free(capture);
}

int main(void)
{
	size_t len = bench_env("BENCH_MIB", 1024) * MIB;

	printf("%zu MiB of memory, all populated\n", len / MIB);
	for (unsigned kind = 0; kind < N_TARGET_KINDS; kind++) {
		struct target target;

		target_start(&target, kind, len);
		protect_alone(&target);
		arm(&target);
		for (size_t n = 64; n <= 16384; n *= 4)
			rearm(&target, n);
		settle_under_load(&target);
		target_stop(&target);
		fflush(stdout);
	}
	return 0;
}
