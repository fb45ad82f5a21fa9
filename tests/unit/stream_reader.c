/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stream_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const uint8_t reader_devstate[16] = { 'Q', 'E', 'V', 'M', 0,   0,   0,	 3,
				      4,   'd', 'e', 'v', 'i', 'c', 'e', 0 };

int memory_sink_write(void *opaque, uint64_t at, const void *buf, size_t len)
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
	for (i = 0; i < reader->blocks->n_blocks; i++)
		if (!strcmp(reader->blocks->blocks[i].name, name))
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
		assert_true(reader->blocks->blocks[block].migratable);
		length = get(reader, 8);
		assert_int_equal(length,
				 reader->blocks->blocks[block].used_length);
		assert_true(length <= total);
		total -= length;
		reader->ram[block] = calloc(1, length);
		memset(reader->ram[block], READER_UNTOUCHED, length);
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
		assert_true(block < READER_BLOCKS_MAX && reader->ram[block]);
		assert_true(offset < reader->blocks->blocks[block].used_length);
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

void reader_read(struct reader *reader, const struct memory_sink *sink,
		 const struct ram_blocks *blocks)
{
	uint32_t id;

	*reader = (struct reader){ .at = sink->data,
				   .end = sink->data + sink->len,
				   .blocks = blocks };
	assert_true(blocks->n_blocks <= READER_BLOCKS_MAX);
	assert_int_equal(get(reader, 4), 0x5145564d);
	assert_int_equal(get(reader, 4), 3);
	assert_int_equal(get(reader, 1), 0x07);
	expect_text(reader, 4, READER_MACHINE);
	assert_int_equal(get(reader, 1), 0x01);
	id = (uint32_t)get(reader, 4);
	assert_true(id);
	expect_text(reader, 1, "ram");
	assert_int_equal(get(reader, 4), 0);
	assert_int_equal(get(reader, 4), 4);
	read_ram(reader);
	assert_int_equal(get(reader, 1), 0x7e);
	assert_int_equal(get(reader, 4), id);

	assert_memory_equal(reader->at, reader_devstate + 8,
			    sizeof(reader_devstate) - 9);
	reader->at += sizeof(reader_devstate) - 9;
	assert_int_equal(get(reader, 1), 0);
	assert_int_equal(get(reader, 1), 6);
	assert_int_equal(get(reader, 4), 0);
	assert_ptr_equal(reader->at, reader->end);
}

void reader_free(struct reader *reader, struct memory_sink *sink)
{
	for (size_t i = 0; i < READER_BLOCKS_MAX; i++)
		free(reader->ram[i]);
	free(sink->data);
}
