/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"
#include "world.h"

/*
 * Holes punched into files that are memory, which make no event: what was there
 * at the instant is captured or said to be lost; what was a hole then stays
 * one, and costs nothing. Shared mappings and private ones, of small and huge
 * pages.
 *
 * The target is this very process. Nothing is captured before capture_run(), so
 * what is done between the instant and that comes first.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/result.h"
#include "capture/capture.h"
#include "sys/filemap.h"

#define N_UNITS 24

struct world {
	struct memory memory; /* its file */
	size_t unit;	      /* a page of it */
	bool is_shared;
	uint8_t *at; /* where it is captured */
	size_t len;
	uint8_t *expected, *got;
	uint64_t n_got;
	struct self self;
	struct capture *capture;
};

static int sink_put(void *opaque, unsigned region, uint64_t first, uint64_t n,
		    const void *data, struct hold *hold)
{
	struct world *w = opaque;

	(void)region;
	(void)hold;
	memcpy(w->got + first * PAGE_SIZE, data, n * PAGE_SIZE);
	w->n_got += n;
	return 0;
}

static uint8_t *unit(struct world *w, size_t i)
{
	return w->at + i * w->unit;
}

/* All of the units from `first` on. */
static void fill(struct world *w, size_t first, size_t n, uint8_t value)
{
	memset(unit(w, first), value, n * w->unit);
}

static void punch(struct world *w, size_t first, size_t n)
{
	assert_int_equal(
		fallocate(w->memory.fd,
			  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (off_t)(w->memory.fd_offset + first * w->unit),
			  (off_t)(n * w->unit)),
		0);
}

/*
 * Units 0 to 7 are of the file, 8 to 15 a hole; of a private mapping 4 to 11
 * are its own, be they of the file below or not. What follows is a hole.
 */
static struct world *world_new(enum memory_kind kind, bool is_shared)
{
	struct world *w = calloc(1, sizeof(*w));

	w->unit = kind == MEMFD ? PAGE_SIZE : PMD_SIZE;
	w->is_shared = is_shared;
	w->len = N_UNITS * w->unit;
	if (!memory_map(&w->memory, kind, w->len, 0)) {
		print_message("no %s here\n", memory_kind_names[kind]);
		free(w);
		skip();
	}
	w->at = w->memory.at;
	fill(w, 0, 8, 1);
	if (!is_shared) {
		w->at = mmap(NULL, w->len, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_NORESERVE, w->memory.fd,
			     (off_t)w->memory.fd_offset);
		assert_true(w->at != MAP_FAILED);
		fill(w, 4, 8, 2);
	}
	w->expected = calloc(1, w->len);
	w->got = calloc(1, w->len);
	assert_non_null(w->got);
	return w;
}

static void world_free(struct world *w)
{
	w->capture = capture_free(w->capture);
	if (!w->is_shared)
		munmap(w->at, w->len);
	self_close(&w->self);
	memory_unmap(&w->memory);
	free(w->expected);
	free(w->got);
	free(w);
}

static void arm(struct world *w)
{
	struct capture_config config = {
		.buffer_bytes = 16 * MIB,
		.granule_bytes = 64 * KIB,
		.sink = { .put = sink_put, .opaque = w },
	};
	struct capture_space space = { .pid = getpid(), .mem_fd = -1 };
	struct region_desc desc = {
		.range = { (uintptr_t)w->at, (uintptr_t)w->at + w->len },
		.page_size = w->unit,
		.fd = w->memory.fd,
		.fd_offset = w->memory.fd_offset,
		.shared = w->is_shared,
		.file_id = 1,
	};

	self_open(&w->self);
	space.uffd = open_uffd(&config.markers);
	space.pidfd = w->self.pidfd;
	space.pagemap_fd = w->self.pagemap_fd;
	assert_int_equal(capture_new(&w->capture, &config), 0);
	assert_int_equal(capture_add_space(w->capture, &space), 0);
	assert_int_equal(capture_add_region(w->capture, &desc), 0);
	assert_int_equal(capture_arm(w->capture), 0);
}

static void settle(struct world *w)
{
	assert_int_equal(capture_settle(w->capture), 0);
	assert_int_equal(capture_rearm(w->capture), 0);
}

static int finish(struct world *w)
{
	int r = capture_run(w->capture);

	return r ? r : capture_drain(w->capture);
}

static void expect(struct world *w, size_t first, size_t n, uint8_t value)
{
	memset(w->expected + first * w->unit, value, n * w->unit);
}

static void expect_all(struct world *w)
{
	expect(w, 0, 8, 1);
	if (!w->is_shared)
		expect(w, 4, 8, 2);
}

static void assert_right(struct world *w)
{
	assert_int_equal(finish(w), 0);
	assert_memory_equal(w->got, w->expected, w->len);
}

static blkcnt_t count_blocks(const struct world *w)
{
	struct stat st;

	assert_int_equal(fstat(w->memory.fd, &st), 0);
	return st.st_blocks;
}

struct kind {
	enum memory_kind kind;
	bool is_shared;
};

#define SHARED_SMALL        \
	&(struct kind)      \
	{                   \
		MEMFD, true \
	}
#define SHARED_HUGE                 \
	&(struct kind)              \
	{                           \
		HUGETLB_MEMFD, true \
	}
#define PRIVATE_SMALL        \
	&(struct kind)       \
	{                    \
		MEMFD, false \
	}
#define PRIVATE_HUGE                 \
	&(struct kind)               \
	{                            \
		HUGETLB_MEMFD, false \
	}

static struct world *begin(void **state)
{
	const struct kind *kind = *state;

	return world_new(kind->kind, kind->is_shared);
}

/* Holes of the instant stay holes, of the file, too. */
static void holes_are_left_alone(void **state)
{
	struct world *w = begin(state);
	blkcnt_t before = count_blocks(w);

	arm(w);
	settle(w);
	expect_all(w);
	assert_right(w);
	assert_int_equal(w->n_got * PAGE_SIZE,
			 (w->is_shared ? 8 : 12) * w->unit);
	assert_int_equal(count_blocks(w), before);
	world_free(w);
}

static void a_hole_is_a_loss(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 2, 1);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

/* By the thread that serves a writer, who is let go. */
static void a_hole_beside_what_is_written_is_a_loss(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 2, 1);
	fill(w, 3, 1, 9);
	assert_int_equal(*unit(w, 3), 9);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

/* As QEMU does it, and the guest writes there anew. */
static void a_discard_that_is_told_late_is_a_loss(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 2, 1);
	assert_int_equal(madvise(unit(w, 2), w->unit, MADV_DONTNEED), 0);
	fill(w, 2, 1, 9);
	assert_int_equal(*unit(w, 2), 9);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

/* To read it fills it with zeros. */
static void a_filled_hole_is_a_loss(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 2, 1);
	assert_int_equal(*(volatile uint8_t *)unit(w, 2), 0);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

/* Where there was a hole before it is one still. */
static void a_hole_in_a_hole_is_none(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 16, 4);
	expect_all(w);
	assert_right(w);
	world_free(w);
}

/* Before the instant: no event tells of it. */
static void an_early_hole_is_none(void **state)
{
	struct world *w = begin(state);

	arm(w);
	punch(w, 1, 2);
	settle(w);
	expect_all(w);
	expect(w, 1, 2, 0);
	assert_right(w);
	world_free(w);
}

/* What is written there anew before the instant is captured. */
static void an_early_hole_may_be_filled(void **state)
{
	struct world *w = begin(state);

	arm(w);
	punch(w, 1, 2);
	fill(w, 2, 1, 9);
	settle(w);
	expect_all(w);
	expect(w, 1, 1, 0);
	expect(w, 2, 1, 9);
	assert_right(w);
	world_free(w);
}

/* A private mapping's own pages: they go with an event, and are captured
 * first, be there a page of the file below or a hole. */
static void own_pages_are_captured_first(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	assert_int_equal(madvise(unit(w, 6), 4 * w->unit, MADV_DONTNEED), 0);
	expect_all(w);
	assert_right(w);
	world_free(w);
}

/* A hole below them changes nothing. */
static void own_pages_hide_holes(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 5, 6);
	expect_all(w);
	assert_right(w);
	world_free(w);
}

/* Huge ones go with the hole below them. */
static void a_hole_takes_huge_pages(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 5, 1);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

/* To read it puts a page of zeros there, again the mapping's own; `i`: what was
 * there was the file's below 4, its own below 12. */
static void a_hole_is_read(void **state, size_t i)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, i, 1);
	assert_int_equal(*(volatile uint8_t *)unit(w, i), 0);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

static void a_read_hole_of_the_file_is_a_loss(void **state)
{
	a_hole_is_read(state, 2);
}

static void a_read_hole_of_its_own_is_a_loss(void **state)
{
	a_hole_is_read(state, 6);
	a_hole_is_read(state, 9);
}

/* By the thread that serves the writer. */
static void a_written_hole_of_its_own_is_a_loss(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 6, 1);
	fill(w, 6, 1, 9);
	assert_int_equal(*unit(w, 6), 9);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

/* Somebody else puts a page into the file, with what was there before. */
static void a_hole_of_its_own_is_filled(void **state)
{
	struct world *w = begin(state);

	arm(w);
	settle(w);
	punch(w, 6, 1);
	memset(w->memory.at + 6 * w->unit, 2, w->unit);
	assert_int_equal(*unit(w, 6), 2);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

/* Nothing is lost with them. */
static void pages_of_zeros_may_go(void **state)
{
	struct world *w = begin(state);

	fill(w, 12, 4, 1);
	fill(w, 12, 4, 0);
	arm(w);
	settle(w);
	punch(w, 12, 2);
	assert_int_equal(*(volatile uint8_t *)unit(w, 13), 0);
	expect_all(w);
	assert_right(w);
	world_free(w);
}

/* One that holds something at its end only. */
static void a_page_of_one_byte_is_a_loss(void **state)
{
	struct world *w = begin(state);

	unit(w, 13)[-1] = 1;
	arm(w);
	settle(w);
	punch(w, 12, 1);
	assert_int_equal(*(volatile uint8_t *)unit(w, 12), 0);
	assert_int_equal(finish(w), RESULT_INCONSISTENT);
	world_free(w);
}

/* Before the instant: what is written, or discarded, until then counts. */
static void what_was_its_own_before(void **state)
{
	struct world *w = begin(state);

	arm(w);
	fill(w, 13, 1, 7); /* a hole of the file */
	fill(w, 3, 1, 7);  /* a page of it */
	assert_int_equal(madvise(unit(w, 6), w->unit, MADV_DONTNEED), 0);
	assert_int_equal(madvise(unit(w, 10), w->unit, MADV_DONTNEED), 0);
	punch(w, 5, 1);
	punch(w, 9, 1);
	assert_int_equal(*(volatile uint8_t *)unit(w, 9), 0);
	settle(w);
	expect_all(w);
	expect(w, 13, 1, 7);
	expect(w, 3, 1, 7);
	expect(w, 6, 1, 1);
	expect(w, 10, 1, 0);
	expect(w, 5, 1, 0);
	expect(w, 9, 1, 0);
	assert_right(w);
	world_free(w);
}

/* For the time of the tests; where they are not to be had, some are skipped. */
static int add_huge_pages(int n)
{
	FILE *file = fopen(
		"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "r+");
	int before;

	if (!file)
		return 0;
	if (fscanf(file, "%d", &before) == 1) {
		rewind(file);
		fprintf(file, "%d", before + n);
	}
	fclose(file);
	return 0;
}

static int take_huge_pages(void **state)
{
	(void)state;
	return add_huge_pages(3 * N_UNITS);
}

static int give_huge_pages(void **state)
{
	(void)state;
	return add_huge_pages(-3 * N_UNITS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(test, kind) { #test ": " #kind, test, NULL, NULL, kind }
		TEST(holes_are_left_alone, SHARED_SMALL),
		TEST(holes_are_left_alone, SHARED_HUGE),
		TEST(holes_are_left_alone, PRIVATE_SMALL),
		TEST(a_hole_is_a_loss, SHARED_SMALL),
		TEST(a_hole_is_a_loss, SHARED_HUGE),
		TEST(a_hole_is_a_loss, PRIVATE_SMALL),
		TEST(a_hole_beside_what_is_written_is_a_loss, SHARED_SMALL),
		TEST(a_hole_beside_what_is_written_is_a_loss, PRIVATE_SMALL),
		TEST(a_discard_that_is_told_late_is_a_loss, SHARED_SMALL),
		TEST(a_discard_that_is_told_late_is_a_loss, PRIVATE_SMALL),
		TEST(a_filled_hole_is_a_loss, SHARED_HUGE),
		TEST(a_hole_in_a_hole_is_none, SHARED_SMALL),
		TEST(a_hole_in_a_hole_is_none, SHARED_HUGE),
		TEST(a_hole_in_a_hole_is_none, PRIVATE_SMALL),
		TEST(an_early_hole_is_none, SHARED_SMALL),
		TEST(an_early_hole_is_none, SHARED_HUGE),
		TEST(an_early_hole_may_be_filled, SHARED_SMALL),
		TEST(an_early_hole_may_be_filled, SHARED_HUGE),
		TEST(own_pages_are_captured_first, PRIVATE_SMALL),
		TEST(own_pages_hide_holes, PRIVATE_SMALL),
		TEST(holes_are_left_alone, PRIVATE_HUGE),
		TEST(a_hole_is_a_loss, PRIVATE_HUGE),
		TEST(a_filled_hole_is_a_loss, PRIVATE_HUGE),
		TEST(a_hole_in_a_hole_is_none, PRIVATE_HUGE),
		TEST(own_pages_are_captured_first, PRIVATE_HUGE),
		TEST(a_hole_takes_huge_pages, PRIVATE_HUGE),
		TEST(a_read_hole_of_the_file_is_a_loss, PRIVATE_HUGE),
		TEST(a_read_hole_of_its_own_is_a_loss, PRIVATE_HUGE),
		TEST(a_written_hole_of_its_own_is_a_loss, PRIVATE_HUGE),
		TEST(a_hole_of_its_own_is_filled, PRIVATE_HUGE),
		TEST(pages_of_zeros_may_go, PRIVATE_HUGE),
		TEST(a_page_of_one_byte_is_a_loss, PRIVATE_HUGE),
		TEST(what_was_its_own_before, PRIVATE_HUGE),
	};

	return cmocka_run_group_tests(tests, take_huge_pages, give_huge_pages);
}
