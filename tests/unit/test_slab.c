/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which buffers are given to whom. What touching costs, and how fast the disk
 * is, are put into the pool by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "capture/slab.h"

#define N_SLABS	 64
#define LONG_NS	 (3600ull * 1000000000)
#define SHORT_NS 1000

static int setup(void **state)
{
	static struct slab_pool pool;

	*state = &pool;
	return slab_pool_init(&pool, N_SLABS * SLAB_SIZE);
}

static int teardown(void **state)
{
	slab_pool_deinit(*state);
	return 0;
}

static void fill_and_queue(struct slab_pool *pool, struct slab *slab)
{
	slab->used = PAGE_SIZE;
	slab_queue(pool, slab);
}

/* The fault thread takes all that is warm; what it took last is returned. */
static struct slab *use_up_warm(struct slab_pool *pool)
{
	struct slab *slab = NULL;

	while (pool->n_warm) {
		if (slab)
			fill_and_queue(pool, slab);
		slab = slab_get(pool, true, SLAB_SEGMENTS);
	}
	return slab;
}

static void test_scanner_leaves_a_share(void **state)
{
	struct slab_pool *pool = *state;
	size_t n = 0;

	/* Nothing is out, so there is nothing to wait for. */
	while (pool->n_warm + pool->n_cold > pool->n_reserved) {
		assert_non_null(slab_get(pool, false, SLAB_SEGMENTS));
		n++;
	}
	assert_int_equal(n, N_SLABS - pool->n_reserved);
	assert_true(pool->n_warm > 0);
	assert_int_equal(slab_pool_peak(pool), n * SLAB_SIZE);
	/* And the fault thread has what is left. */
	for (n = 0; n < pool->n_reserved; n++)
		assert_non_null(slab_get(pool, true, SLAB_SEGMENTS));
	assert_int_equal(pool->n_warm + pool->n_cold, 0);
}

static void test_touches_when_the_disk_is_slow(void **state)
{
	struct slab_pool *pool = *state;
	struct slab *slab = use_up_warm(pool);
	size_t n_cold = pool->n_cold;

	fill_and_queue(pool, slab);
	pool->touch_ns = SHORT_NS;
	pool->back_ns = LONG_NS;
	assert_non_null(slab_get(pool, true, SLAB_SEGMENTS));
	assert_int_equal(pool->n_cold, n_cold - 1);
}

static void test_touches_when_the_disk_stalls(void **state)
{
	struct slab_pool *pool = *state;
	struct slab *slab = use_up_warm(pool);
	size_t n_cold = pool->n_cold;

	/* It was quick so far, but it has been silent for as long. */
	fill_and_queue(pool, slab);
	pool->touch_ns = LONG_NS;
	pool->back_ns = SHORT_NS;
	pool->back_since_ns = now_ns() - LONG_NS - 1;
	assert_non_null(slab_get(pool, true, SLAB_SEGMENTS));
	assert_int_equal(pool->n_cold, n_cold - 1);
}

static void test_waits_no_longer_than_touching_takes(void **state)
{
	struct slab_pool *pool = *state;
	struct slab *slab = use_up_warm(pool);
	uint64_t start_ns;

	fill_and_queue(pool, slab);
	pool->touch_ns = pool->back_ns = 20000000;
	pool->back_since_ns = start_ns = now_ns();
	assert_non_null(slab_get(pool, true, SLAB_SEGMENTS));
	assert_true(now_ns() - start_ns >= 20000000);
}

static void test_fault_thread_waits_for_no_laggard(void **state)
{
	struct slab_pool *pool = *state;
	struct slab *slab = use_up_warm(pool);
	size_t n_cold = pool->n_cold;

	fill_and_queue(pool, slab);
	pool->touch_ns = LONG_NS;
	pool->back_ns = SHORT_NS;
	pool->back_since_ns = now_ns();
	assert_non_null(slab_get(pool, true, SLAB_SEGMENTS));
	assert_int_equal(pool->n_cold, n_cold - 1);
}

static void test_touches_no_more_than_is_needed(void **state)
{
	struct slab_pool *pool = *state;
	struct slab *slab = use_up_warm(pool);
	size_t n_cold = pool->n_cold;

	/* Half of it takes less than what comes back does. */
	fill_and_queue(pool, slab);
	pool->touch_ns = LONG_NS;
	pool->back_ns = LONG_NS / 2 + SHORT_NS;
	pool->back_since_ns = now_ns();
	slab = slab_get(pool, true, SLAB_SEGMENTS / 2);
	assert_non_null(slab);
	assert_int_equal(pool->n_cold, n_cold - 1);

	assert_int_equal(slab->touched, 0);
	slab_touch(pool, slab, 3);
	assert_int_equal(slab->touched, 3 * PAGE_SIZE);
	assert_true(pool->touch_ns < LONG_NS);
	slab->used = 2 * PAGE_SIZE;
	slab_touch(pool, slab, 1);
	assert_int_equal(slab->touched, 3 * PAGE_SIZE);
	slab_touch(pool, slab, SLAB_SEGMENTS);
	assert_int_equal(slab->touched, SLAB_SIZE);
}

static void *write_later(void *pool)
{
	struct slab *slab = slab_next(pool, true);

	usleep(20000);
	hold_put(&slab->hold);
	return NULL;
}

static void test_waits_for_a_quick_disk(void **state)
{
	struct slab_pool *pool = *state;
	struct slab *slab = use_up_warm(pool);
	size_t n_cold = pool->n_cold;
	pthread_t disk;

	while (slab_next(pool, false))
		; /* under way */
	fill_and_queue(pool, slab);
	pool->touch_ns = pool->back_ns = LONG_NS;
	pool->back_since_ns = now_ns();
	assert_int_equal(pthread_create(&disk, NULL, write_later, pool), 0);
	assert_ptr_equal(slab_get(pool, true, SLAB_SEGMENTS), slab);
	assert_int_equal(pool->n_cold, n_cold);
	pthread_join(disk, NULL);
}

static void test_waits_no_longer_than_told(void **state)
{
	struct slab_pool *pool = *state;

	while (pool->n_warm + pool->n_cold)
		assert_non_null(
			slab_get_within(pool, true, SLAB_SEGMENTS, LONG_NS));
	assert_null(slab_get_within(pool, true, SLAB_SEGMENTS, SHORT_NS));
	assert_null(slab_get_within(pool, false, SLAB_SEGMENTS, SHORT_NS));
}

static void *fail_later(void *pool)
{
	usleep(20000);
	slab_pool_fail(pool);
	return NULL;
}

static void test_failure_ends_waiting(void **state)
{
	struct slab_pool *pool = *state;
	struct slab *slab = use_up_warm(pool);
	pthread_t thread;

	fill_and_queue(pool, slab);
	pool->touch_ns = pool->back_ns = LONG_NS;
	pool->back_since_ns = now_ns();
	assert_int_equal(pthread_create(&thread, NULL, fail_later, pool), 0);
	assert_null(slab_get(pool, true, SLAB_SEGMENTS));
	pthread_join(thread, NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_scanner_leaves_a_share),
		TEST(test_touches_when_the_disk_is_slow),
		TEST(test_touches_when_the_disk_stalls),
		TEST(test_waits_no_longer_than_touching_takes),
		TEST(test_fault_thread_waits_for_no_laggard),
		TEST(test_touches_no_more_than_is_needed),
		TEST(test_waits_for_a_quick_disk),
		TEST(test_waits_no_longer_than_told),
		TEST(test_failure_ends_waiting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
