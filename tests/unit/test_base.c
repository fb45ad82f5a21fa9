/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/histogram.h"
#include "base/page.h"
#include "base/util.h"

/* The same operations on an array of bytes, the obvious way. */
static void bitmap_does_what_bytes_do(void **state)
{
	enum { N = 300, STEPS = 20000 };
	uint8_t model[N] = {};
	struct bitmap bitmap;

	(void)state;
	srandom(1);
	assert_int_equal(bitmap_init(&bitmap, N), 0);
	for (int i = 0; i < STEPS; i++) {
		uint64_t a = (uint64_t)random() % (N + 1);
		uint64_t b = (uint64_t)random() % (N + 1);
		uint64_t first = min_u64(a, b), end = max_u64(a, b);
		uint64_t set = end, clear = end, count = 0;

		switch (random() % 4) {
		case 0:
			bitmap_set_range(&bitmap, first, end);
			for (uint64_t j = first; j < end; j++)
				model[j] = 1;
			break;
		case 1:
			bitmap_clear_range(&bitmap, first, end);
			for (uint64_t j = first; j < end; j++)
				model[j] = 0;
			break;
		case 2:
			if (a < N) {
				assert_int_equal(
					bitmap_test_and_set(&bitmap, a),
					model[a]);
				model[a] = 1;
			}
			break;
		default:
			if (a < N) {
				assert_int_equal(
					bitmap_test_and_clear(&bitmap, a),
					model[a]);
				model[a] = 0;
			}
		}
		for (uint64_t j = end; j-- > first;) {
			count += model[j];
			if (model[j])
				set = j;
			else
				clear = j;
		}
		assert_int_equal(bitmap_count(&bitmap, first, end), count);
		assert_int_equal(bitmap_find_set(&bitmap, first, end), set);
		assert_int_equal(bitmap_find_clear(&bitmap, first, end), clear);
	}
	bitmap_deinit(&bitmap);
}

/* A page is data when any byte of it is: the first, the last, one between. */
static void pages_with_data_are_found(void **state)
{
	enum { N = 6 };
	uint8_t *pages = aligned_alloc(PAGE_SIZE, N * PAGE_SIZE);

	(void)state;
	memset(pages, 0, N * PAGE_SIZE);
	assert_int_equal(page_find_data(pages, 0, N), N);
	assert_int_equal(page_find_zero(pages, 0, N), 0);
	pages[1 * PAGE_SIZE] = 1;
	pages[2 * PAGE_SIZE + 8] = 1;
	pages[5 * PAGE_SIZE - 1] = 1;
	assert_int_equal(page_find_data(pages, 0, N), 1);
	assert_int_equal(page_find_data(pages, 2, N), 2);
	assert_int_equal(page_find_zero(pages, 1, N), 3);
	assert_int_equal(page_find_data(pages, 3, N), 4);
	assert_int_equal(page_find_zero(pages, 4, N), 5);
	assert_int_equal(page_find_zero(pages, 4, 5), 5);
	assert_int_equal(page_find_data(pages, 5, N), N);
	assert_int_equal(page_find_data(pages, N, N), N);
	free(pages);
}

static void histogram_is_right_within_its_step(void **state)
{
	struct histogram *h = calloc(1, sizeof(*h));

	(void)state;
	assert_int_equal(histogram_quantile(h, 0.5), 0);
	for (uint64_t i = 1; i <= 100000; i++)
		histogram_record(h, i * 10);
	for (double q = 0.01; q < 1; q += 0.01) {
		double exact = q * 1e6;
		double got = (double)histogram_quantile(h, q);

		assert_true(got >= exact * 0.999 && got <= exact * 1.04);
	}
	assert_int_equal(histogram_quantile(h, 1), 1000000);
	assert_int_equal(h->max, 1000000);
	histogram_record(h, UINT64_MAX);
	assert_int_equal(h->max, UINT64_MAX);
	free(h);
}

static void histogram_buckets_follow_one_another(void **state)
{
	(void)state;
	for (size_t i = 1; i < HISTOGRAM_BUCKETS; i++)
		assert_true(histogram_bucket_limit(i) >
			    histogram_bucket_limit(i - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bitmap_does_what_bytes_do),
		cmocka_unit_test(pages_with_data_are_found),
		cmocka_unit_test(histogram_is_right_within_its_step),
		cmocka_unit_test(histogram_buckets_follow_one_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
