/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/histogram.h"
#include "base/io.h"
#include "base/page.h"
#include "base/text.h"
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

static void what_drives_a_terminal_is_not_printed(void **state)
{
	static const struct {
		const char *from, *to;
	} texts[] = {
		{ "pc.ram", "pc.ram" },
		{ "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80",
		  "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x98\x80" },
		{ "\x1b[2J\r\n\t\x7f", "?[2J????" },
		/* CSI as C1, in UTF-8 and as a byte */
		{ "\xc2\x9b"
		  "2J",
		  "??2J" },
		{ "\x9b"
		  "2J",
		  "?2J" },
		{ "\xe2\x80\xae"
		  "cba",
		  "???cba" },
		/* cut short, too long, a surrogate, too high */
		{ "a\xe2\x82", "a??" },
		{ "\xc0\xaf", "??" },
		{ "\xe0\x80\xaf", "???" },
		{ "\xed\xa0\x80", "???" },
		{ "\xf4\x90\x80\x80", "????" },
	};
	char text[64];

	(void)state;
	assert_null(text_make_printable(NULL));
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		strcpy(text, texts[i].from);
		assert_string_equal(text_make_printable(text), texts[i].to);
	}
}

static void only_regular_files_are_opened(void **state)
{
	char dir[] = "/tmp/snapuffd-io-XXXXXX", command[128];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(
		command, sizeof(command),
		"cd %s && echo x >file && ln -s file link && mkfifo fifo && mkdir dir",
		dir);
	assert_int_equal(system(command), 0);
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(io_open_regular(fd, "link"), -EMEDIUMTYPE);
	assert_int_equal(io_open_regular(fd, "fifo"), -EMEDIUMTYPE);
	assert_int_equal(io_open_regular(fd, "dir"), -EMEDIUMTYPE);
	assert_int_equal(io_open_regular(fd, "none"), -ENOENT);
	assert_int_equal(io_open_regular(AT_FDCWD, "/dev/zero"), -EMEDIUMTYPE);
	close(io_open_regular(fd, "file"));
	close(fd);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

static void times_have_limits(void **state)
{
	(void)state;
	assert_true(time_to_ns(1, 5) == 1000000005);
	assert_true(time_to_ns(-1, 5) == -999999995);
	assert_true(time_to_ns(INT64_MAX, 0) == INT64_MAX);
	assert_true(time_to_ns(9223372036, 999999999) == INT64_MAX);
	assert_true(time_to_ns(INT64_MIN, 0) == INT64_MIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bitmap_does_what_bytes_do),
		cmocka_unit_test(pages_with_data_are_found),
		cmocka_unit_test(histogram_is_right_within_its_step),
		cmocka_unit_test(histogram_buckets_follow_one_another),
		cmocka_unit_test(what_drives_a_terminal_is_not_printed),
		cmocka_unit_test(only_regular_files_are_opened),
		cmocka_unit_test(times_have_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
