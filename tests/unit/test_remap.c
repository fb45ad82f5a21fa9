/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"
#include "world.h"

/*
 * A target that moves its memory about while it is captured: what was there at
 * the instant is captured, under the addresses of the instant.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/result.h"
#include "capture/capture.h"
#include "sys/vmio.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define LEN	(6 * MIB)
#define N_SLOTS 4
#define N_RUNS	6

struct world {
	struct capture *capture;
	struct self self;
	uint8_t *expected, *got;
	size_t len;
	uint8_t *slots[N_SLOTS]; /* where it may be */
	uint8_t *at;		 /* where it is; the mover's */
	pthread_t thread;
	_Atomic bool stop, is_frozen, stands;
	_Atomic uint64_t n_moves;
	void (*move)(struct world *w, uint64_t random);
};

static int sink_put(void *opaque, unsigned region, uint64_t first, uint64_t n,
		    const void *data, struct hold *hold)
{
	struct world *w = opaque;

	(void)hold;
	assert_int_equal(region, 0);
	assert_true((first + n) * PAGE_SIZE <= w->len);
	memcpy(w->got + first * PAGE_SIZE, data, n * PAGE_SIZE);
	return 0;
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	struct capture_config config = {
		.mappings_change = true,
		.buffer_bytes = 32 * MIB,
		.granule_bytes = 64 * KIB,
		.sink = { .put = sink_put, .opaque = w },
	};
	struct capture_space space = { .pid = getpid(), .mem_fd = -1 };

	space.uffd = open_uffd(&config.markers);
	if (!config.markers) {
		print_message("no UFFD_FEATURE_WP_UNPOPULATED here\n");
		skip();
	}
	self_open(&w->self);
	space.pidfd = w->self.pidfd;
	space.pagemap_fd = w->self.pagemap_fd;
	assert_int_equal(capture_new(&w->capture, &config), 0);
	assert_int_equal(capture_add_space(w->capture, &space), 0);
	return w;
}

static void world_free(struct world *w)
{
	w->capture = capture_free(w->capture);
	free(w->expected);
	free(w->got);
	self_close(&w->self);
	free(w);
}

static void stamp(uint8_t *at, size_t n_pages, uint64_t seed)
{
	for (size_t i = 0; i < n_pages; i++)
		__atomic_store_n((uint64_t *)(at + i * PAGE_SIZE), seed + i,
				 __ATOMIC_RELAXED);
}

static void add_region(struct world *w, const struct memory *memory)
{
	struct region_desc desc = {
		.range = { (uintptr_t)memory->at,
			   (uintptr_t)memory->at + memory->len },
		.page_size = PAGE_SIZE,
		.fd = memory->fd,
		.fd_offset = memory->fd_offset,
		.shared = memory->fd >= 0,
		.file_id = memory->fd >= 0,
	};

	w->at = memory->at;
	w->len = memory->len;
	w->expected = calloc(1, w->len);
	w->got = calloc(1, w->len);
	assert_int_equal(capture_add_region(w->capture, &desc), 0);
}

static void arm(struct world *w)
{
	assert_int_equal(capture_arm(w->capture), 0);
	assert_int_equal(capture_settle(w->capture), 0);
}

static void take_instant(struct world *w)
{
	assert_int_equal(capture_rearm(w->capture), 0);
	assert_int_equal(
		vm_read(getpid(), (uintptr_t)w->at, w->expected, w->len), 0);
}

static int finish(struct world *w)
{
	int r = capture_run(w->capture);

	return r ? r : capture_drain(w->capture);
}

static void check(const struct world *w)
{
	size_t n_wrong = 0;

	for (size_t at = 0; at < w->len; at += PAGE_SIZE)
		n_wrong += !!memcmp(w->expected + at, w->got + at, PAGE_SIZE);
	assert_int_equal(n_wrong, 0);
}

static uint8_t *reserve(size_t len)
{
	uint8_t *at = mmap(NULL, len, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(at != MAP_FAILED);
	return at;
}

static uint8_t *move(uint8_t *from, size_t len, uint8_t *to)
{
	uint8_t *at = mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);

	if (at != to)
		abort();
	return at;
}

/* One that has moved all, or the middle to and fro, and written to it. */
static void move_slots(struct world *w, uint64_t random)
{
	uint8_t *to = w->slots[random % N_SLOTS];
	uint8_t *middle = w->at + w->len / 4;

	if (to == w->at) {
		uint8_t *aside = mremap(middle, w->len / 4, w->len / 4,
					MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);

		if (aside == MAP_FAILED)
			abort();
		stamp(aside + random % 64 * PAGE_SIZE, 16, random);
		move(aside, w->len / 4, middle);
	} else {
		w->at = move(w->at, w->len, to);
	}
	stamp(w->at + random / 64 % (w->len / PAGE_SIZE - 4) * PAGE_SIZE, 4,
	      random);
}

static void *move_main(void *data)
{
	struct world *w = data;
	uint64_t seed = 88172645463325252;

	while (!atomic_load(&w->stop)) {
		atomic_store(&w->stands, atomic_load(&w->is_frozen));
		if (atomic_load(&w->stands))
			continue;
		w->move(w, next_random(&seed));
		atomic_fetch_add(&w->n_moves, 1);
	}
	return NULL;
}

static void start_mover(struct world *w, void (*fn)(struct world *, uint64_t))
{
	w->move = fn;
	assert_int_equal(pthread_create(&w->thread, NULL, move_main, w), 0);
}

static void wait_for_moves(struct world *w, uint64_t n)
{
	uint64_t until = atomic_load(&w->n_moves) + n;

	for (int i = 0; atomic_load(&w->n_moves) < until; i++) {
		assert_true(i < 100000);
		usleep(100);
	}
}

static void freeze(struct world *w, bool frozen)
{
	atomic_store(&w->is_frozen, frozen);
	for (int i = 0; atomic_load(&w->stands) != frozen; i++) {
		assert_true(i < 100000);
		usleep(100);
	}
}

/* Fails if it waits for good. */
static void stop_mover(struct world *w)
{
	wait_for_moves(w, 4);
	atomic_store(&w->stop, true);
	pthread_join(w->thread, NULL);
}

static void flat_out(enum memory_kind kind)
{
	unsigned n_right = 0;

	for (int run = 0; run < N_RUNS; run++) {
		struct world *w = world_new();
		struct memory memory;
		int r;

		assert_true(memory_map(&memory, kind, LEN, 5));
		stamp(memory.at, memory.len / PAGE_SIZE, 1);
		add_region(w, &memory);
		w->slots[0] = memory.at;
		for (int i = 1; i < N_SLOTS; i++)
			w->slots[i] = reserve(memory.len + PMD_SIZE);
		arm(w);
		/* At first it stands. */
		atomic_store(&w->is_frozen, true);
		start_mover(w, move_slots);
		freeze(w, true);
		take_instant(w);
		freeze(w, false);
		wait_for_moves(w, 20);
		r = finish(w);
		stop_mover(w);
		assert_true(!r || r == RESULT_INCONSISTENT);
		if (!r)
			check(w);
		n_right += !r;
		w->capture = capture_free(w->capture);
		for (int i = 1; i < N_SLOTS; i++)
			munmap(w->slots[i], LEN + PMD_SIZE);
		world_free(w);
		memory_unmap(&memory);
	}
	print_message("%u of %u are right\n", n_right, N_RUNS);
	assert_true(n_right >= N_RUNS / 2);
}

static void small_pages(void **state)
{
	(void)state;
	flat_out(ANON_SMALL);
}

static void huge_pages(void **state)
{
	(void)state;
	flat_out(ANON_HUGE);
}

/* What one thread does after the instant, before anything is captured. */
struct step {
	struct world *w;
	void (*run)(struct world *w);
};

static void *step_main(void *data)
{
	struct step *step = data;

	step->run(step->w);
	return NULL;
}

static int one_step(enum memory_kind kind, void (*run)(struct world *))
{
	struct world *w = world_new();
	struct step step = { w, run };
	struct memory memory;
	pthread_t thread;
	int r;

	assert_true(memory_map(&memory, kind, LEN, 5));
	stamp(memory.at, memory.len / PAGE_SIZE, 1);
	add_region(w, &memory);
	arm(w);
	take_instant(w);
	assert_int_equal(pthread_create(&thread, NULL, step_main, &step), 0);
	pthread_join(thread, NULL);
	r = finish(w);
	if (!r)
		check(w);
	world_free(w);
	memory_unmap(&memory);
	return r;
}

static void grow(struct world *w)
{
	uint8_t *at = mremap(w->at, w->len, 2 * w->len, MREMAP_MAYMOVE);

	assert_true(at != MAP_FAILED);
	stamp(at, 2 * w->len / PAGE_SIZE, 77);
	/* Of what has moved it is captured first. */
	assert_int_equal(madvise(at, w->len / 2, MADV_DONTNEED), 0);
	munmap(at + w->len, w->len);
}

static void shrink(struct world *w)
{
	assert_true(mremap(w->at, w->len, w->len / 2, 0) == w->at);
}

static void overwrite(struct world *w)
{
	move(w->at, w->len / 4, w->at + w->len / 2);
}

/* All is written to, so captured, before it goes. */
static void overwrite_captured(struct world *w)
{
	stamp(w->at, w->len / PAGE_SIZE, 77);
	move(w->at, w->len / 4, w->at + w->len / 2);
}

static void unmap_moved(struct world *w)
{
	uint8_t *at = move(w->at, w->len, reserve(w->len));

	munmap(at + w->len / 2, PAGE_SIZE);
}

/* What is left behind is written to, and is not what moved. */
static void leave_empty(struct world *w)
{
	uint8_t *at = mremap(w->at, w->len, w->len,
			     MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);

	assert_true(at != MAP_FAILED && at != w->at);
	stamp(w->at, w->len / PAGE_SIZE, 77);
	stamp(at, w->len / 2 / PAGE_SIZE, 99);
}

static void map_again(struct world *w)
{
	uint8_t *at = mremap(w->at, 0, w->len, MREMAP_MAYMOVE);

	assert_true(at != MAP_FAILED);
	stamp(at, w->len / PAGE_SIZE, 77);
	munmap(at, w->len);
}

static void move_file(struct world *w)
{
	uint8_t *at = move(w->at, w->len, reserve(w->len));

	stamp(at, w->len / 2 / PAGE_SIZE, 77);
}

static void what_grows_is_followed(void **state)
{
	(void)state;
	assert_int_equal(one_step(ANON_SMALL, grow), 0);
	assert_int_equal(one_step(ANON_HUGE, grow), 0);
}

static void what_is_lost_is_noticed(void **state)
{
	(void)state;
	assert_int_equal(one_step(ANON_SMALL, shrink), RESULT_INCONSISTENT);
	assert_int_equal(one_step(ANON_SMALL, overwrite), RESULT_INCONSISTENT);
	assert_int_equal(one_step(ANON_SMALL, unmap_moved),
			 RESULT_INCONSISTENT);
}

static void what_is_captured_may_be_lost(void **state)
{
	(void)state;
	assert_int_equal(one_step(ANON_SMALL, overwrite_captured), 0);
}

static void dontunmap_leaves_other_memory(void **state)
{
	(void)state;
	assert_int_equal(one_step(ANON_SMALL, leave_empty), 0);
	assert_int_equal(one_step(ANON_HUGE, leave_empty), 0);
}

static void shared_memory_is_followed(void **state)
{
	(void)state;
	assert_int_equal(one_step(MEMFD, move_file), 0);
}

/* All of it is captured before its caller goes on. */
static void a_second_mapping_of_shared_memory(void **state)
{
	(void)state;
	assert_int_equal(one_step(MEMFD, map_again), 0);
	assert_int_equal(one_step(MEMFD, leave_empty), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_pages),
		cmocka_unit_test(huge_pages),
		cmocka_unit_test(what_grows_is_followed),
		cmocka_unit_test(what_is_lost_is_noticed),
		cmocka_unit_test(what_is_captured_may_be_lost),
		cmocka_unit_test(dontunmap_leaves_other_memory),
		cmocka_unit_test(shared_memory_is_followed),
		cmocka_unit_test(a_second_mapping_of_shared_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
