/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bench.h"

/*
 * What one fault should capture: how long a writer takes to touch every page,
 * at random, that is being captured, and how long a single write, by granule.
 * Once with faults alone, once with the scanner beside.
 */

#include <stdio.h>

#include "base/util.h"

static void measure(struct target *target, size_t granule, bool scan)
{
	struct capture *capture = target_capture(target, granule, 768 * MIB);
	const uint64_t *ns;
	uint64_t total;
	size_t n;

	need(!capture_arm(capture));
	need(!capture_rearm(capture));
	target_begin_writes(target, target->len / PAGE_SIZE, PAGE_SIZE);
	if (scan) {
		need(!capture_run(capture));
		need(!capture_drain(capture));
	}
	total = target_end_writes(target, &ns, &n);
	capture_free(capture);
	printf("%-6s %6zu %-8s %10.0f %10.2f %10.1f %10.1f %10.0f\n",
	       target_kind_names[target->kind], granule / KIB,
	       scan ? "yes" : "no", (double)total / 1e6,
	       quantile_us(ns, n, 0.5), quantile_us(ns, n, 0.99),
	       quantile_us(ns, n, 0.999), quantile_us(ns, n, 1));
	fflush(stdout);
}

static void measure_all(enum target_kind kind, size_t smallest)
{
	struct target target;

	target_start(&target, kind, bench_env("BENCH_MIB", 1024) * MIB);
	for (size_t granule = smallest; granule <= PMD_SIZE; granule *= 2)
		for (int scan = 0; scan <= 1; scan++)
			measure(&target, granule, scan);
	target_stop(&target);
}

int main(void)
{
	printf("touching %llu MiB at random, a write a page\n",
	       (unsigned long long)bench_env("BENCH_MIB", 1024));
	printf("%-6s %6s %-8s %10s %10s %10s %10s %10s\n", "memory", "KiB",
	       "scanner", "all, ms", "p50, us", "p99, us", "p999, us",
	       "worst, us");
	measure_all(TARGET_SMALL, 4 * KIB);
	measure_all(TARGET_MEMFD, 4 * KIB);
	measure_all(TARGET_HUGE, PMD_SIZE);
	return 0;
}
