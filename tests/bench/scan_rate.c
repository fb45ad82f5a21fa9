/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bench.h"

/*
 * How fast the scanner copies, against memcpy() from warm memory of this
 * process; and the ways to read shared memory, of which region.c has one.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "base/util.h"

#define MAX_ROUNDS 32
#define N_SLABS	   32

struct way {
	const char *name;
	double (*run)(struct target *target, uint8_t *slabs); /* GB/s */
};

static uint8_t *slab(uint8_t *slabs, size_t at)
{
	return slabs + at / PMD_SIZE % N_SLABS * PMD_SIZE;
}

static double run_memcpy(struct target *target, uint8_t *slabs)
{
	uint8_t *from = aligned_alloc(PMD_SIZE, target->len);
	uint64_t began;

	need(from);
	madvise(from, target->len, MADV_HUGEPAGE);
	memset(from, 1, target->len);
	began = now_ns();
	for (size_t at = 0; at < target->len; at += PMD_SIZE)
		memcpy(slab(slabs, at), from + at, PMD_SIZE);
	began = now_ns() - began;
	free(from);
	return gb_per_s(target->len, began);
}

static double run_scanner(struct target *target, uint8_t *slabs)
{
	struct capture *capture =
		target_capture(target, 256 * KIB, N_SLABS * PMD_SIZE);
	uint64_t began, ns;

	(void)slabs;
	need(!capture_arm(capture));
	need(!capture_rearm(capture));
	began = now_ns();
	need(!capture_run(capture));
	ns = now_ns() - began;
	capture_free(capture);
	return gb_per_s(target->len, ns);
}

static double run_pread(struct target *target, uint8_t *slabs)
{
	uint64_t began = now_ns();

	for (size_t at = 0; at < target->len; at += PMD_SIZE)
		need(!io_pread_full(target->memfd, slab(slabs, at), PMD_SIZE,
				    at));
	return gb_per_s(target->len, now_ns() - began);
}

static double run_mapping(struct target *target, uint8_t *slabs, bool warm,
			  bool populate)
{
	uint8_t *from = mmap(NULL, target->len, PROT_READ, MAP_SHARED,
			     target->memfd, 0);
	uint64_t began;

	need(from != MAP_FAILED);
	for (int round = 0; round <= warm; round++) {
		began = now_ns();
		for (size_t at = 0; at < target->len; at += PMD_SIZE) {
			if (populate)
				madvise(from + at, PMD_SIZE,
					MADV_POPULATE_READ);
			memcpy(slab(slabs, at), from + at, PMD_SIZE);
		}
		began = now_ns() - began;
	}
	munmap(from, target->len);
	return gb_per_s(target->len, began);
}

static double run_cold(struct target *target, uint8_t *slabs)
{
	return run_mapping(target, slabs, false, false);
}

static double run_populated(struct target *target, uint8_t *slabs)
{
	return run_mapping(target, slabs, false, true);
}

static double run_warm(struct target *target, uint8_t *slabs)
{
	return run_mapping(target, slabs, true, false);
}

static const struct way private_ways[] = {
	{ "memcpy", run_memcpy },
	{ "scanner", run_scanner },
	{},
};

static const struct way shared_ways[] = {
	{ "memcpy", run_memcpy },
	{ "scanner", run_scanner },
	{ "pread", run_pread },
	{ "mapping, cold", run_cold },
	{ "mapping, cold, MADV_POPULATE_READ", run_populated },
	{ "mapping, warm", run_warm },
	{},
};

static void compare(enum target_kind kind, const struct way *ways)
{
	size_t rounds = min_u64(bench_env("BENCH_ROUNDS", 5), MAX_ROUNDS);
	uint8_t *slabs = aligned_alloc(PMD_SIZE, N_SLABS * PMD_SIZE);
	double rates[8][MAX_ROUNDS], ratios[MAX_ROUNDS];
	struct target target;

	need(slabs);
	madvise(slabs, N_SLABS * PMD_SIZE, MADV_HUGEPAGE);
	memset(slabs, 1, N_SLABS * PMD_SIZE);
	target_start(&target, kind, bench_env("BENCH_MIB", 512) * MIB);
	for (size_t round = 0; round < rounds; round++)
		for (size_t i = 0; ways[i].run; i++)
			rates[i][round] = ways[i].run(&target, slabs);
	for (size_t i = 0; ways[i].run; i++) {
		for (size_t round = 0; round < rounds; round++)
			ratios[round] = rates[i][round] / rates[0][round];
		printf("%-6s %-34s %8.2f %8.2f\n", target_kind_names[kind],
		       ways[i].name, median(rates[i], rounds),
		       median(ratios, rounds));
		/* Sorting broke the pairs with the first. */
		if (!i)
			for (size_t round = 0; round < rounds; round++)
				rates[0][round] = rates[0][rounds / 2];
	}
	fflush(stdout);
	target_stop(&target);
	free(slabs);
}

int main(void)
{
	printf("%-6s %-34s %8s %8s\n", "memory", "copied by", "GB/s",
	       "/ memcpy");
	compare(TARGET_HUGE, private_ways);
	compare(TARGET_SMALL, private_ways);
	compare(TARGET_MEMFD, shared_ways);
	return 0;
}
