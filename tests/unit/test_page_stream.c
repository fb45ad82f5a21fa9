/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

/*
 * Captured pages become a stream that leaves the same memory in a QEMU whose
 * RAM is zero, but for what it read from files.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "flow/page_stream.h"
#include "stream_reader.h"

#define RAM_PAGES 20000 /* more than a block that is filled from a file */
#define ROM_PAGES 130

enum { RAM, LOCAL, ROM, N_BLOCKS };
enum { RAM_REGION, ROM_REGION, N_REGIONS };

static struct ram_block block_array[N_BLOCKS] = {
	{ .name = "pc.ram",
	  .used_length = RAM_PAGES * PAGE_SIZE,
	  .max_length = RAM_PAGES * PAGE_SIZE,
	  .migratable = true },
	{ .name = "local", .used_length = PAGE_SIZE, .max_length = PAGE_SIZE },
	{ .name = "pc.bios",
	  .used_length = ROM_PAGES * PAGE_SIZE,
	  .max_length = ROM_PAGES * PAGE_SIZE,
	  .migratable = true },
};
static struct ram_region region_array[N_REGIONS] = { { .block = RAM },
						     { .block = ROM } };
static const struct ram ram = { .blocks = { block_array, N_BLOCKS },
				.regions = region_array,
				.n_regions = N_REGIONS };

static struct page_stream *begin(struct memory_sink *sink)
{
	struct savevm_sink ops = { memory_sink_write, sink };
	struct page_stream *to = NULL;

	assert_int_equal(page_stream_new(&to, &ops, READER_MACHINE, &ram), 0);
	return to;
}

/* The stream's end, and what a QEMU has of it. */
static void end(struct page_stream *to, struct memory_sink *sink,
		struct reader *reader)
{
	assert_int_equal(
		page_stream_end(to, reader_devstate, sizeof(reader_devstate)),
		0);
	assert_int_equal(page_stream_bytes(to), sink->len);
	reader_read(reader, sink, &ram.blocks);
	assert_null(reader->ram[LOCAL]);
	assert_int_equal(reader->n_pages, page_stream_data_pages(to));
	assert_null(page_stream_free(to));
}

/* `n` pages, page i of them zero unless i % every == 0. */
static uint8_t *make_pages(uint64_t n, uint64_t every)
{
	uint8_t *pages = aligned_alloc(PAGE_SIZE, n * PAGE_SIZE);

	memset(pages, 0, n * PAGE_SIZE);
	for (uint64_t i = 0; i < n; i += every)
		memset(pages + i * PAGE_SIZE, (int)i | 1, PAGE_SIZE);
	return pages;
}

static uint8_t byte_of(const struct reader *reader, size_t block, uint64_t page)
{
	return reader->ram[block][page * PAGE_SIZE + PAGE_SIZE / 2];
}

static void nothing_was_captured(void **state)
{
	struct memory_sink sink = {};
	struct reader reader;

	(void)state;
	end(begin(&sink), &sink, &reader);
	assert_int_equal(reader.n_pages, 0);
	/* All of the ROM is zero, and nothing is said of RAM. */
	assert_int_equal(reader.n_zero, ROM_PAGES);
	for (uint64_t i = 0; i < ROM_PAGES; i++)
		assert_int_equal(byte_of(&reader, ROM, i), 0);
	for (uint64_t i = 0; i < RAM_PAGES; i++)
		assert_int_equal(byte_of(&reader, RAM, i), READER_UNTOUCHED);
	reader_free(&reader, &sink);
}

static void zero_pages_of_ram_are_not_sent(void **state)
{
	uint8_t *pages = make_pages(PMD_PAGES, 3);
	struct memory_sink sink = {};
	struct page_stream *to = begin(&sink);
	struct reader reader;

	(void)state;
	/* Not in order. */
	assert_int_equal(page_stream_put(to, RAM_REGION, RAM_PAGES - PMD_PAGES,
					 PMD_PAGES, pages),
			 0);
	assert_int_equal(page_stream_put(to, RAM_REGION, 0, PMD_PAGES, pages),
			 0);
	end(to, &sink, &reader);
	assert_int_equal(reader.n_pages, 2 * ((PMD_PAGES + 2) / 3));
	assert_int_equal(reader.n_zero, ROM_PAGES);
	for (uint64_t i = 0; i < PMD_PAGES; i++) {
		uint8_t want = i % 3 ? READER_UNTOUCHED : (uint8_t)(i | 1);

		assert_int_equal(byte_of(&reader, RAM, i), want);
		assert_int_equal(
			byte_of(&reader, RAM, RAM_PAGES - PMD_PAGES + i), want);
	}
	assert_true(sink.len < (reader.n_pages + 2) * (PAGE_SIZE + 9));
	reader_free(&reader, &sink);
	free(pages);
}

/* Each page of a ROM is said exactly once: as data if it was put as that, else,
 * whether it was put as zero or not at all, as zero. */
static void every_page_of_a_rom_is_said(void **state)
{
	uint8_t *pages = make_pages(ROM_PAGES, 5);
	struct memory_sink sink = {};
	struct page_stream *to = begin(&sink);
	struct reader reader;

	(void)state;
	assert_int_equal(page_stream_put(to, ROM_REGION, 100, 30, pages), 0);
	assert_int_equal(page_stream_put(to, ROM_REGION, 0, 70, pages), 0);
	end(to, &sink, &reader);
	assert_int_equal(reader.n_pages, 6 + 14);
	assert_int_equal(reader.n_pages + reader.n_zero, ROM_PAGES);
	for (uint64_t i = 0; i < ROM_PAGES; i++) {
		uint8_t want = 0;

		if (i < 70 && i % 5 == 0)
			want = (uint8_t)(i | 1);
		if (i >= 100 && i % 5 == 0)
			want = (uint8_t)((i - 100) | 1);
		assert_int_equal(byte_of(&reader, ROM, i), want);
	}
	reader_free(&reader, &sink);
	free(pages);
}

static void a_failing_sink_is_told(void **state)
{
	uint8_t *pages = make_pages(PMD_PAGES, 1);
	struct memory_sink sink = { .fail_at = 1 };
	struct page_stream *to = begin(&sink);

	(void)state;
	assert_int_equal(page_stream_put(to, RAM_REGION, 0, PMD_PAGES, pages),
			 -ENOSPC);
	assert_int_equal(
		page_stream_end(to, reader_devstate, sizeof(reader_devstate)),
		-ENOSPC);
	assert_int_equal(sink.len, 0);
	page_stream_free(to);
	free(pages);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_was_captured),
		cmocka_unit_test(zero_pages_of_ram_are_not_sent),
		cmocka_unit_test(every_page_of_a_rom_is_said),
		cmocka_unit_test(a_failing_sink_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
