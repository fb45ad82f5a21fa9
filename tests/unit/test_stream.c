/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The migration stream, read back by a reader that was written from the same
 * description of the format and shares no code with the writer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "qemu/stream.h"

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

static const uint8_t devstate[] = { 'Q', 'E', 'V', 'M', 0,   0,	  0,   3,
				    4,	 'd', 'e', 'v', 'i', 'c', 'e', 0 };

struct memory_sink {
	uint8_t *data;
	size_t len;
	size_t n_writes;
	size_t fail_at; /* bytes; 0: never */
};

static int sink_write(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct memory_sink *sink = opaque;

	assert_int_equal(at, sink->len);
	if (sink->fail_at && sink->len + len > sink->fail_at)
		return -ENOSPC;
	sink->data = realloc(sink->data, sink->len + len);
	memcpy(sink->data + sink->len, buf, len);
	sink->len += len;
	sink->n_writes++;
	return 0;
}

/* The reader: a position, and what the stream left in the guest's memory. */
struct reader {
	const uint8_t *at, *end;
	uint8_t *ram[N_BLOCKS];
	unsigned n_pages, n_zero, n_names;
};

static uint64_t get(struct reader *reader, unsigned n_bytes)
{
	uint64_t value = 0;

	assert_true((size_t)(reader->end - reader->at) >= n_bytes);
	while (n_bytes--)
		value = value << 8 | *reader->at++;
	return value;
}

static void get_text(struct reader *reader, size_t len, char *text)
{
	assert_true((size_t)(reader->end - reader->at) >= len);
	memcpy(text, reader->at, len);
	text[len] = '\0';
	reader->at += len;
}

static void expect_text(struct reader *reader, unsigned len_bytes,
			const char *expected)
{
	char text[256];

	get_text(reader, get(reader, len_bytes), text);
	assert_string_equal(text, expected);
}

static size_t get_block(struct reader *reader)
{
	char name[256];
	size_t i;

	get_text(reader, get(reader, 1), name);
	reader->n_names++;
	for (i = 0; i < N_BLOCKS; i++)
		if (!strcmp(block_array[i].name, name))
			return i;
	fail_msg("unknown block %s", name);
	return 0;
}

static void read_block_list(struct reader *reader, uint64_t total)
{
	uint64_t length;
	size_t block;

	while (total) {
		block = get_block(reader);
		assert_true(block_array[block].migratable);
		length = get(reader, 8);
		assert_int_equal(length, block_array[block].used_length);
		assert_true(length <= total);
		total -= length;
		reader->ram[block] = calloc(1, length);
		memset(reader->ram[block], 0xee, length);
	}
	reader->n_names = 0;
}

static void read_ram(struct reader *reader)
{
	uint64_t record, offset;
	unsigned flags;
	size_t block = SIZE_MAX;

	for (;;) {
		record = get(reader, 8);
		flags = record & 4095;
		offset = record & ~4095ull;
		if (flags == 0x10)
			return;
		if (flags == 0x04) {
			read_block_list(reader, offset);
			continue;
		}
		if (!(flags & 0x20))
			block = get_block(reader);
		flags &= ~0x20u;
		assert_true(block < N_BLOCKS && reader->ram[block]);
		assert_true(offset < block_array[block].used_length);
		if (flags == 0x08) {
			assert_true(reader->end - reader->at >= 4096);
			memcpy(reader->ram[block] + offset, reader->at, 4096);
			reader->at += 4096;
			reader->n_pages++;
		} else {
			assert_int_equal(flags, 0x02);
			assert_int_equal(get(reader, 1), 0);
			memset(reader->ram[block] + offset, 0, 4096);
			reader->n_zero++;
		}
	}
}

static void read_stream(struct reader *reader, const struct memory_sink *sink)
{
	uint32_t id;

	*reader = (struct reader){ .at = sink->data,
				   .end = sink->data + sink->len };
	assert_int_equal(get(reader, 4), 0x5145564d);
	assert_int_equal(get(reader, 4), 3);
	assert_int_equal(get(reader, 1), 0x07);
	expect_text(reader, 4, "pc-i440fx-7.2");
	assert_int_equal(get(reader, 1), 0x01);
	id = (uint32_t)get(reader, 4);
	assert_true(id);
	expect_text(reader, 1, "ram");
	assert_int_equal(get(reader, 4), 0);
	assert_int_equal(get(reader, 4), 4);
	read_ram(reader);
	assert_int_equal(get(reader, 1), 0x7e);
	assert_int_equal(get(reader, 4), id);

	assert_memory_equal(reader->at, devstate + 8, sizeof(devstate) - 9);
	reader->at += sizeof(devstate) - 9;
	assert_int_equal(get(reader, 1), 0);
	assert_int_equal(get(reader, 1), 6);
	assert_int_equal(get(reader, 4), 0);
	assert_ptr_equal(reader->at, reader->end);
}

static void free_all(struct reader *reader, struct memory_sink *sink)
{
	for (size_t i = 0; i < N_BLOCKS; i++)
		free(reader->ram[i]);
	free(sink->data);
}

static struct stream *begin(struct memory_sink *sink)
{
	struct savevm_sink ops = { sink_write, sink };
	struct stream *stream = NULL;

	assert_int_equal(stream_begin(&ops, "pc-i440fx-7.2", &blocks, &stream),
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
	assert_int_equal(stream_end(stream, devstate, sizeof(devstate)), 0);
	assert_int_equal(stream_bytes(stream), sink.len);
	stream_free(stream);
	assert_true(sink.n_writes < 10);

	read_stream(&reader, &sink);
	assert_int_equal(reader.n_pages, N_PAGES + 1);
	assert_int_equal(reader.n_zero, 1);
	assert_int_equal(reader.n_names, 3);
	assert_memory_equal(reader.ram[0], ram, N_PAGES * 4096);
	assert_memory_equal(reader.ram[2] + 4096, ram + 4096, 4096);
	assert_int_equal(reader.ram[2][0], 0);
	assert_null(reader.ram[1]);
	free_all(&reader, &sink);
	free(ram);
}

static void test_no_pages(void **state)
{
	struct memory_sink sink = { 0 };
	struct stream *stream = begin(&sink);
	struct reader reader;

	(void)state;
	assert_int_equal(stream_end(stream, devstate, sizeof(devstate)), 0);
	stream_free(stream);
	read_stream(&reader, &sink);
	assert_int_equal(reader.n_pages, 0);
	free_all(&reader, &sink);
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
	struct savevm_sink ops = { sink_write, &sink };
	struct ram_block odd = { .name = "x", .used_length = 100 };
	struct ram_blocks one = { &odd, 1 };
	struct stream *stream = NULL;

	(void)state;
	assert_int_equal(stream_begin(&ops, "pc", &one, &stream), -EINVAL);
	assert_null(stream);
	stream = begin(&sink);
	assert_int_equal(stream_end(stream, devstate, sizeof(devstate) - 1),
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
	assert_int_equal(stream_end(stream, devstate, sizeof(devstate)),
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
