/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bench.h"

/*
 * How fast pages reach the disk: the image writer's ways, and dd with
 * oflag=direct, in turn, in $TMPDIR or where this is run. Everything is synced.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "image/writer.h"

#define MAX_ROUNDS 16
#define N_SLABS	   32

struct slab_hold {
	struct hold hold;
	_Atomic bool used;
};

struct way {
	const char *name;
	bool scattered; /* runs of 4 to 64 KiB with gaps, instead of 2 MiB */
	struct image_writer_options options;
};

static struct slab_hold holds[N_SLABS];
static uint8_t *slabs;

static void on_released(struct hold *hold)
{
	struct slab_hold *slab =
		(struct slab_hold *)((char *)hold -
				     offsetof(struct slab_hold, hold));

	atomic_store(&slab->used, false);
}

static unsigned next_slab(struct image_writer *writer, unsigned at)
{
	at %= N_SLABS;
	while (atomic_load(&holds[at].used))
		need(image_writer_wait(writer) >= 0);
	atomic_store(&holds[at].used, true);
	hold_init(&holds[at].hold, on_released);
	return at;
}

/* Fills one slab's worth; returns the page behind it. */
static uint64_t put_slab(struct image_writer *writer, const struct way *way,
			 unsigned slab, uint64_t page)
{
	const uint8_t *data = slabs + slab * PMD_SIZE;
	uint64_t n = PMD_PAGES, at = 0;

	while (at < PMD_PAGES) {
		if (way->scattered)
			n = min_u64((uint64_t)1 << random() % 5,
				    PMD_PAGES - at);
		need(!image_writer_put_pages(writer, 0, page, n,
					     data + at * PAGE_SIZE,
					     &holds[slab].hold));
		at += n;
		page += way->scattered ? 2 * n : n;
	}
	hold_put(&holds[slab].hold);
	return page;
}

static double run_writer(const struct way *way, const char *dir, size_t len)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_image_writer_ struct image_writer *writer = NULL;
	struct image_region region = {
		.name = "ram",
		.length = 2 * len + PMD_SIZE,
		.page_size = PAGE_SIZE,
	};
	uint64_t began, page = 0;

	need(asprintf(&path, "%s/image", dir) > 0);
	need(!image_writer_new(&writer, path, &way->options));
	need(!image_writer_add_region(writer, &region));
	srandom(1);
	began = now_ns();
	for (size_t i = 0; i < len / PMD_SIZE; i++)
		page = put_slab(writer, way, next_slab(writer, (unsigned)i),
				page);
	need(!image_writer_sync(writer));
	return (double)len / MIB / ((double)(now_ns() - began) / 1e9);
}

static double run_dd(const char *dir, size_t len)
{
	_cleanup_free_ char *out = NULL, *count = NULL;
	uint64_t began = now_ns();
	int status;
	pid_t pid;

	need(asprintf(&out, "of=%s/dd", dir) > 0);
	need(asprintf(&count, "count=%zu", len / PMD_SIZE) > 0);
	pid = fork();
	need(pid >= 0);
	if (!pid) {
		execlp("dd", "dd", "if=/dev/zero", out, "bs=2M", count,
		       "oflag=direct", "conv=fsync", "status=none", NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	began = now_ns() - began;
	unlink(out + 3);
	return status ? 0 : (double)len / MIB / ((double)began / 1e9);
}

static const struct way ways[] = {
	{ "2 MiB runs, io_uring, direct", false, {} },
	{ "2 MiB runs, threads, direct", false, { .no_uring = true } },
	{ "2 MiB runs, io_uring, buffered", false, { .no_direct = true } },
	{ "2 MiB runs, threads, buffered",
	  false,
	  { .no_uring = true, .no_direct = true } },
	{ "4 to 64 KiB runs, io_uring, direct", true, {} },
	{ "4 to 64 KiB runs, threads, direct", true, { .no_uring = true } },
	{ "4 to 64 KiB runs, io_uring, buffered", true, { .no_direct = true } },
	{ "4 to 64 KiB runs, threads, buffered",
	  true,
	  { .no_uring = true, .no_direct = true } },
};

static void make_data(void)
{
	uint64_t x = 88172645463325252;

	slabs = aligned_alloc(PMD_SIZE, N_SLABS * PMD_SIZE);
	need(slabs);
	for (size_t i = 0; i < N_SLABS * PMD_SIZE / 8; i++) {
		x = x * 6364136223846793005 + 1442695040888963407;
		((uint64_t *)slabs)[i] = x;
	}
}

int main(void)
{
	size_t rounds = min_u64(bench_env("BENCH_ROUNDS", 3), MAX_ROUNDS);
	size_t len = bench_env("BENCH_MIB", 512) * MIB;
	const char *parent = getenv("TMPDIR");
	double rate[ARRAY_SIZE(ways)][MAX_ROUNDS], dd[MAX_ROUNDS], dd_rate;
	_cleanup_free_ char *dir = NULL;

	need(asprintf(&dir, "%s/write_rate-XXXXXX",
		      parent && *parent ? parent : ".") > 0);
	need(mkdtemp(dir));
	make_data();
	for (size_t round = 0; round < rounds; round++) {
		dd[round] = run_dd(dir, len);
		for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
			rate[i][round] = run_writer(&ways[i], dir, len);
	}
	rmdir(dir);
	dd_rate = median(dd, rounds);
	printf("%zu MiB                                   MiB/s     / dd\n",
	       len / MIB);
	printf("%-38s %9.0f %8.2f\n", "dd bs=2M oflag=direct", dd_rate, 1.0);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		printf("%-38s %9.0f %8.2f\n", ways[i].name,
		       median(rate[i], rounds),
		       dd_rate > 0 ? median(rate[i], rounds) / dd_rate : 0);
	free(slabs);
	return 0;
}
