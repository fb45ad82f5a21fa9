/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/stream.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "qemu/devstate.h"

/* migration/qemu-file-types.h, savevm.c */
#define FILE_MAGIC	    0x5145564du /* "QEVM" */
#define FILE_VERSION	    3
#define SECTION_EOF	    0x00
#define SECTION_START	    0x01
#define SECTION_VMDESC	    0x06
#define SECTION_CONFIG	    0x07
#define SECTION_FOOTER	    0x7e
/* What xen-save-devices-state writes before its first section. */
#define DEVSTATE_HEADER_LEN 8

/* migration/ram.c */
#define RAM_ZERO     0x02u
#define RAM_MEM_SIZE 0x04u
#define RAM_PAGE     0x08u
#define RAM_EOS	     0x10u
#define RAM_CONTINUE 0x20u
#define RAM_VERSION  4

/* Any number that no device's section has, but 0: QEMU takes that for none.
 * QEMU counts its own up from 0. */
#define RAM_SECTION_ID 0x7ffffff0u

/* Large writes, but a buffer that stays in the processor's cache. */
#define BUF_SIZE   ((size_t)1 << 20)
#define RECORD_MAX (8 + 1 + RAM_BLOCK_NAME_MAX + (size_t)PAGE_SIZE)

#define NO_BLOCK SIZE_MAX

struct stream {
	struct stream_sink sink;
	const struct ram_blocks *blocks;
	size_t last_block; /* of the last record: needs no name again */
	uint64_t flushed;  /* bytes */
	size_t used;
	int error; /* a sink that failed once is not asked again */
	uint8_t buf[BUF_SIZE];
};

static int write_sink(struct stream *stream, const void *data, size_t len)
{
	if (!stream->error)
		stream->error =
			stream->sink.write(stream->sink.opaque, data, len);
	if (!stream->error)
		stream->flushed += len;
	return stream->error;
}

static int flush(struct stream *stream)
{
	size_t used = stream->used;

	stream->used = 0;
	return used ? write_sink(stream, stream->buf, used) : stream->error;
}

/* Room for `len` bytes, which the put functions then do not check. */
static int reserve(struct stream *stream, size_t len)
{
	return BUF_SIZE - stream->used < len ? flush(stream) : stream->error;
}

static void put(struct stream *stream, const void *data, size_t len)
{
	memcpy(stream->buf + stream->used, data, len);
	stream->used += len;
}

static void put_u8(struct stream *stream, uint8_t value)
{
	stream->buf[stream->used++] = value;
}

static void put_be32(struct stream *stream, uint32_t value)
{
	value = htobe32(value);
	put(stream, &value, sizeof(value));
}

static void put_be64(struct stream *stream, uint64_t value)
{
	value = htobe64(value);
	put(stream, &value, sizeof(value));
}

/* A length of one byte, then the text without its NUL. */
static void put_name(struct stream *stream, const char *name)
{
	size_t len = strlen(name);

	put_u8(stream, (uint8_t)len);
	put(stream, name, len);
}

static int put_header(struct stream *stream, const char *machine)
{
	size_t len = strlen(machine);
	int r;

	r = reserve(stream, 64 + len);
	if (r)
		return r;
	put_be32(stream, FILE_MAGIC);
	put_be32(stream, FILE_VERSION);
	put_u8(stream, SECTION_CONFIG);
	put_be32(stream, (uint32_t)len);
	put(stream, machine, len);

	put_u8(stream, SECTION_START);
	put_be32(stream, RAM_SECTION_ID);
	put_name(stream, "ram");
	put_be32(stream, 0); /* instance */
	put_be32(stream, RAM_VERSION);
	return 0;
}

static int put_block_list(struct stream *stream)
{
	const struct ram_blocks *blocks = stream->blocks;
	uint64_t total = 0;
	size_t i;
	int r;

	for (i = 0; i < blocks->n_blocks; i++)
		if (blocks->blocks[i].migratable)
			total += blocks->blocks[i].used_length;
	put_be64(stream, total | RAM_MEM_SIZE);

	for (i = 0; i < blocks->n_blocks; i++) {
		const struct ram_block *block = &blocks->blocks[i];

		if (!block->migratable)
			continue;
		r = reserve(stream, RECORD_MAX);
		if (r)
			return r;
		put_name(stream, block->name);
		put_be64(stream, block->used_length);
	}
	return 0;
}

/* What the format can't say, from whatever source the blocks are. */
static bool can_be_told(const struct ram_blocks *blocks, const char *machine)
{
	size_t i;

	for (i = 0; i < blocks->n_blocks; i++)
		if (strlen(blocks->blocks[i].name) > RAM_BLOCK_NAME_MAX ||
		    blocks->blocks[i].used_length % PAGE_SIZE)
			return false;
	return strlen(machine) <= RAM_BLOCK_NAME_MAX;
}

int stream_begin(const struct stream_sink *sink, const char *machine,
		 const struct ram_blocks *blocks, struct stream **out)
{
	_cleanup_stream_ struct stream *stream = NULL;
	int r;

	if (!can_be_told(blocks, machine))
		return log_errno(-EINVAL, "stream: machine or ram blocks: %m");
	/* Not calloc: the buffer need not be touched before it is used. */
	stream = malloc(sizeof(*stream));
	if (!stream)
		return log_errno(-ENOMEM, "stream: %m");
	stream->sink = *sink;
	stream->blocks = blocks;
	stream->last_block = NO_BLOCK;
	stream->flushed = 0;
	stream->used = 0;
	stream->error = 0;

	r = put_header(stream, machine);
	r = r ?: put_block_list(stream);
	if (r)
		return r;
	*out = steal_ptr(stream);
	return 0;
}

static void put_record(struct stream *stream, size_t block, uint64_t offset,
		       uint32_t flag)
{
	if (block == stream->last_block) {
		put_be64(stream, offset | flag | RAM_CONTINUE);
		return;
	}
	put_be64(stream, offset | flag);
	put_name(stream, stream->blocks->blocks[block].name);
	stream->last_block = block;
}

static bool is_in_block(const struct stream *stream, size_t block,
			uint64_t offset, size_t n_pages)
{
	const struct ram_block *b;

	if (block >= stream->blocks->n_blocks)
		return false;
	b = &stream->blocks->blocks[block];
	return b->migratable && !(offset % PAGE_SIZE) &&
	       offset <= b->used_length &&
	       n_pages <= (b->used_length - offset) / PAGE_SIZE;
}

static int out_of_range(size_t block, uint64_t offset)
{
	return log_errno(-ERANGE,
			 "stream: page at offset 0x%llx is not in block %zu",
			 (unsigned long long)offset, block);
}

int stream_pages(struct stream *stream, size_t block, uint64_t offset,
		 const void *data, size_t n_pages)
{
	const uint8_t *page = data;
	size_t i;
	int r;

	if (!is_in_block(stream, block, offset, n_pages))
		return out_of_range(block, offset);
	for (i = 0; i < n_pages; i++) {
		r = reserve(stream, RECORD_MAX);
		if (r)
			return r;
		put_record(stream, block, offset + i * PAGE_SIZE, RAM_PAGE);
		put(stream, page + i * PAGE_SIZE, PAGE_SIZE);
	}
	return 0;
}

int stream_zero_pages(struct stream *stream, size_t block, uint64_t offset,
		      size_t n_pages)
{
	size_t i;
	int r;

	if (!is_in_block(stream, block, offset, n_pages))
		return out_of_range(block, offset);
	for (i = 0; i < n_pages; i++) {
		r = reserve(stream, RECORD_MAX);
		if (r)
			return r;
		put_record(stream, block, offset + i * PAGE_SIZE, RAM_ZERO);
		put_u8(stream, 0);
	}
	return 0;
}

static int put_end_of_ram(struct stream *stream)
{
	int r;

	r = reserve(stream, 64);
	if (r)
		return r;
	put_be64(stream, RAM_EOS);
	put_u8(stream, SECTION_FOOTER);
	put_be32(stream, RAM_SECTION_ID);
	return 0;
}

static int put_trailer(struct stream *stream)
{
	int r;

	r = reserve(stream, 64);
	if (r)
		return r;
	put_u8(stream, SECTION_EOF);
	/* QEMU reads a description for debuggers here, and takes an empty one;
	 * with none it would wait for it. */
	put_u8(stream, SECTION_VMDESC);
	put_be32(stream, 0);
	return flush(stream);
}

int stream_end(struct stream *stream, const void *devstate, size_t devstate_len)
{
	const uint8_t *bytes = devstate;
	int r;

	r = devstate_check(devstate, devstate_len);
	if (r)
		return log_errno(r, "stream: device state: %m");
	r = put_end_of_ram(stream);
	r = r ?: flush(stream);
	/* Without its own header and end, which the stream has already. */
	r = r
		    ?: write_sink(stream, bytes + DEVSTATE_HEADER_LEN,
				  devstate_len - DEVSTATE_HEADER_LEN - 1);
	return r ?: put_trailer(stream);
}

uint64_t stream_bytes(const struct stream *stream)
{
	return stream->flushed + stream->used;
}

struct stream *stream_free(struct stream *stream)
{
	free(stream);
	return NULL;
}
