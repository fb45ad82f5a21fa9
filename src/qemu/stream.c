/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/stream.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"

#define RECORD_MAX (8 + 1 + RAM_BLOCK_NAME_MAX + (size_t)PAGE_SIZE)

#define NO_BLOCK SIZE_MAX

struct stream {
	size_t last_block; /* of the last record: needs no name again */
	struct savevm vm;
};

static int put_block_list(struct stream *stream)
{
	const struct ram_blocks *blocks = stream->vm.blocks;
	int r = 0;

	for (size_t i = 0; !r && i < blocks->n_blocks; i++)
		if (blocks->blocks[i].migratable)
			r = savevm_put_block(&stream->vm, &blocks->blocks[i]);
	return r;
}

int stream_begin(const struct savevm_sink *sink, const char *machine,
		 const struct ram_blocks *blocks, struct stream **out)
{
	_cleanup_stream_ struct stream *stream = malloc(sizeof(*stream));
	int r;

	if (!stream)
		return log_errno(-ENOMEM, "stream: %m");
	stream->last_block = NO_BLOCK;
	r = savevm_begin(&stream->vm, sink, machine, NULL, blocks);
	r = r ?: put_block_list(stream);
	if (r)
		return r;
	*out = steal_ptr(stream);
	return 0;
}

static void put_record(struct stream *stream, size_t block, uint64_t offset,
		       uint32_t flag)
{
	struct savevm *vm = &stream->vm;

	if (block == stream->last_block) {
		savevm_put_be64(vm, offset | flag | RAM_CONTINUE);
		return;
	}
	savevm_put_be64(vm, offset | flag);
	savevm_put_name(vm, vm->blocks->blocks[block].name);
	stream->last_block = block;
}

int stream_pages(struct stream *stream, size_t block, uint64_t offset,
		 const void *data, size_t n_pages)
{
	struct savevm *vm = &stream->vm;
	const uint8_t *page = data;
	int r = savevm_check_pages(vm, block, offset, n_pages);

	for (size_t i = 0; !r && i < n_pages; i++) {
		r = savevm_reserve(vm, RECORD_MAX);
		if (r)
			break;
		put_record(stream, block, offset + i * PAGE_SIZE, RAM_PAGE);
		savevm_put(vm, page + i * PAGE_SIZE, PAGE_SIZE);
	}
	return r;
}

int stream_zero_pages(struct stream *stream, size_t block, uint64_t offset,
		      size_t n_pages)
{
	struct savevm *vm = &stream->vm;
	int r = savevm_check_pages(vm, block, offset, n_pages);

	for (size_t i = 0; !r && i < n_pages; i++) {
		r = savevm_reserve(vm, RECORD_MAX);
		if (r)
			break;
		put_record(stream, block, offset + i * PAGE_SIZE, RAM_ZERO);
		savevm_put_u8(vm, 0);
	}
	return r;
}

int stream_end(struct stream *stream, const void *devstate, size_t devstate_len)
{
	return savevm_end(&stream->vm, devstate, devstate_len);
}

uint64_t stream_bytes(const struct stream *stream)
{
	return savevm_position(&stream->vm);
}

struct stream *stream_free(struct stream *stream)
{
	free(stream);
	return NULL;
}
