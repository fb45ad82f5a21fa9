/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

/* The migration stream, read back by a reader of its own. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "qemu/stream.h"
#include "stream_reader.h"

#define N_BLOCKS 3
#define N_PAGES	 700 /* of the big block: more than the buffer holds */

static struct ram_block block_array[N_BLOCKS] = {
	{ .name = "pc.ram",
	  .used_length = N_PAGES * 4096,
	  .max_length = N_PAGES * 4096,
	  .migratable = true },
	{ .name = "local", .used_length = 4096, .max_length = 4096 },
	{ .name = "/rom@etc/acpi/tables",
	  .used_length = 2 * 4096,
	  .max_length = 8 * 4096,
	  .migratable = true },
};
static const struct ram_blocks blocks = { block_array, N_BLOCKS };

static struct stream *begin(struct memory_sink *sink)
{
	struct savevm_sink ops = { memory_sink_write, sink };
	struct stream *stream = NULL;

	assert_int_equal(stream_begin(&ops, READER_MACHINE, &blocks, &stream),
			 0);
	return stream;
}

static uint8_t *make_ram(size_t n_pages)
{
	uint8_t *ram = malloc(n_pages * 4096);

	for (size_t i = 0; i < n_pages * 4096; i++)
		ram[i] = (uint8_t)(i * 2654435761u >> 11);
	return ram;
}

static void test_all_pages(void **state)
{
	struct memory_sink sink = { 0 };
	struct stream *stream = begin(&sink);
	uint8_t *ram = make_ram(N_PAGES);
	struct reader reader;

	(void)state;
	/* Not in order, and between two blocks. */
	assert_int_equal(stream_pages(stream, 0, 4096 * 300, ram + 4096 * 300,
				      N_PAGES - 300),
			 0);
	assert_int_equal(stream_pages(stream, 2, 4096, ram + 4096, 1), 0);
	assert_int_equal(stream_zero_pages(stream, 2, 0, 1), 0);
	assert_int_equal(stream_pages(stream, 0, 0, ram, 300), 0);
	assert_int_equal(
		stream_end(stream, reader_devstate, sizeof(reader_devstate)),
		0);
	assert_int_equal(stream_bytes(stream), sink.len);
	stream_free(stream);
	assert_true(sink.n_writes < 10);

	reader_read(&reader, &sink, &blocks);
	assert_int_equal(reader.n_pages, N_PAGES + 1);
	assert_int_equal(reader.n_zero, 1);
	assert_int_equal(reader.n_names, 3);
	assert_memory_equal(reader.ram[0], ram, N_PAGES * 4096);
	assert_memory_equal(reader.ram[2] + 4096, ram + 4096, 4096);
	assert_int_equal(reader.ram[2][0], 0);
	assert_null(reader.ram[1]);
	reader_free(&reader, &sink);
	free(ram);
}

static void test_no_pages(void **state)
{
	struct memory_sink sink = { 0 };
	struct stream *stream = begin(&sink);
	struct reader reader;

	(void)state;
	assert_int_equal(
		stream_end(stream, reader_devstate, sizeof(reader_devstate)),
		0);
	stream_free(stream);
	reader_read(&reader, &sink, &blocks);
	assert_int_equal(reader.n_pages, 0);
	reader_free(&reader, &sink);
}

static void test_out_of_range(void **state)
{
	struct memory_sink sink = { 0 };
	struct stream *stream = begin(&sink);
	uint8_t *ram = make_ram(2);

	(void)state;
	assert_int_equal(stream_pages(stream, 3, 0, ram, 1), -ERANGE);
	assert_int_equal(stream_pages(stream, SIZE_MAX, 0, ram, 1), -ERANGE);
	assert_int_equal(stream_pages(stream, 1, 0, ram, 1), -ERANGE);
	assert_int_equal(stream_pages(stream, 0, 100, ram, 1), -ERANGE);
	assert_int_equal(stream_pages(stream, 2, 4096, ram, 2), -ERANGE);
	assert_int_equal(stream_pages(stream, 2, 3 * 4096, ram, 0), -ERANGE);
	assert_int_equal(stream_pages(stream, 2, 0, ram, SIZE_MAX), -ERANGE);
	assert_int_equal(stream_zero_pages(stream, 2, -4096ull, 1), -ERANGE);
	assert_int_equal(stream_pages(stream, 2, 2 * 4096, ram, 0), 0);
	stream_free(stream);
	free(sink.data);
	free(ram);
}

static void test_bad_input(void **state)
{
	struct memory_sink sink = { 0 };
	struct savevm_sink ops = { memory_sink_write, &sink };
	struct ram_block odd = { .name = "x", .used_length = 100 };
	struct ram_blocks one = { &odd, 1 };
	struct stream *stream = NULL;

	(void)state;
	assert_int_equal(stream_begin(&ops, "pc", &one, &stream), -EINVAL);
	assert_null(stream);
	stream = begin(&sink);
	assert_int_equal(stream_end(stream, reader_devstate,
				    sizeof(reader_devstate) - 1),
			 -EPROTO);
	stream_free(stream);
	free(sink.data);
}

/* A sink's error comes up, at once or at the end, and sticks. */
static void test_sink_fails(void **state)
{
	struct memory_sink sink = { .fail_at = 1 };
	struct stream *stream = begin(&sink);
	uint8_t *ram = make_ram(N_PAGES);

	(void)state;
	assert_int_equal(stream_pages(stream, 0, 0, ram, N_PAGES), -ENOSPC);
	sink.fail_at = 0;
	assert_int_equal(stream_pages(stream, 0, 0, ram, 1), -ENOSPC);
	assert_int_equal(
		stream_end(stream, reader_devstate, sizeof(reader_devstate)),
		-ENOSPC);
	assert_int_equal(sink.len, 0);
	stream_free(stream);
	free(ram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_pages),
		cmocka_unit_test(test_no_pages),
		cmocka_unit_test(test_out_of_range),
		cmocka_unit_test(test_bad_input),
		cmocka_unit_test(test_sink_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
