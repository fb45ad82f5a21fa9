/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/mapped_ram.h"

#include <stdlib.h>

#include "base/bitmap.h"
#include "base/log.h"
#include "base/util.h"

/* migration/ram.c: struct MappedRamHeader, packed; all big-endian. */
#define HEADER_VERSION 1
#define HEADER_LEN     (4 + 3 * 8)
#define PAGES_ALIGN    MIB

/* A bitmap is sparse where its block is, in pieces of this many bits. */
#define PIECE_BITS ((uint64_t)8 * 64 * KIB)

/* Where in the file a block has its parts. */
struct layout {
	uint64_t bitmap_at, pages_at;
	struct bitmap present; /* of a block that is not migratable: empty */
};

struct mapped_ram {
	struct layout *layouts; /* n_blocks of them */
	size_t n_blocks;
	uint64_t devices_at;
	struct savevm vm;
};

/* As the header stands at `at`. */
static int lay_out(const struct ram_block *block, uint64_t at,
		   struct layout *layout)
{
	uint64_t n_pages = block->used_length / PAGE_SIZE;

	layout->bitmap_at = at + HEADER_LEN;
	layout->pages_at = ROUND_UP(
		layout->bitmap_at + ROUND_UP(n_pages, 64) / 8, PAGES_ALIGN);
	/* Lengths are of untrusted input, and none ended beyond this. */
	if (layout->pages_at > INT64_MAX - block->used_length)
		return log_errno(-EFBIG, "mapped-ram: %s: %m", block->name);
	if (bitmap_init(&layout->present, n_pages))
		return log_errno(-ENOMEM, "mapped-ram: %s: %m", block->name);
	return 0;
}

/* One entry of the block list. The next one comes behind its pages. */
static int put_block(struct mapped_ram *ram, const struct ram_block *block,
		     struct layout *layout)
{
	struct savevm *vm = &ram->vm;
	int r;

	r = savevm_put_block(vm, block);
	r = r ?: savevm_reserve(vm, HEADER_LEN);
	r = r ?: lay_out(block, savevm_position(vm), layout);
	if (r)
		return r;
	savevm_put_be32(vm, HEADER_VERSION);
	savevm_put_be64(vm, PAGE_SIZE);
	savevm_put_be64(vm, layout->bitmap_at);
	savevm_put_be64(vm, layout->pages_at);
	return savevm_seek(vm, layout->pages_at + block->used_length);
}

int mapped_ram_begin(const struct savevm_sink *sink, const char *machine,
		     const struct ram_blocks *blocks, struct mapped_ram **out)
{
	_cleanup_mapped_ram_ struct mapped_ram *ram = malloc(sizeof(*ram));
	int r;

	if (!ram)
		return log_errno(-ENOMEM, "mapped-ram: %m");
	ram->n_blocks = blocks->n_blocks;
	ram->layouts = calloc(blocks->n_blocks + 1, sizeof(*ram->layouts));
	if (!ram->layouts)
		return log_errno(-ENOMEM, "mapped-ram: %m");

	r = savevm_begin(&ram->vm, sink, machine, "mapped-ram", blocks);
	for (size_t i = 0; !r && i < blocks->n_blocks; i++)
		if (blocks->blocks[i].migratable)
			r = put_block(ram, &blocks->blocks[i],
				      &ram->layouts[i]);
	if (r)
		return r;
	ram->devices_at = savevm_position(&ram->vm);
	*out = steal_ptr(ram);
	return 0;
}

int mapped_ram_pages(struct mapped_ram *ram, size_t block, uint64_t offset,
		     size_t n_pages, uint64_t *at)
{
	struct layout *layout;
	int r;

	r = savevm_check_pages(&ram->vm, block, offset, n_pages);
	if (r)
		return r;
	layout = &ram->layouts[block];
	bitmap_set_range(&layout->present, offset / PAGE_SIZE,
			 offset / PAGE_SIZE + n_pages);
	*at = layout->pages_at + offset;
	return 0;
}

/* Words of 64 bits, as they are in QEMU's memory and ours. */
static int put_bitmap(struct savevm *vm, const struct layout *layout)
{
	const struct bitmap *present = &layout->present;
	uint64_t end = 0;
	int r = 0;

	while (!r) {
		uint64_t first = bitmap_find_set(present, end, present->n_bits);
		size_t len;

		if (first == present->n_bits)
			break;
		first = ROUND_DOWN(first, PIECE_BITS);
		end = min_u64(first + PIECE_BITS, present->n_bits);
		len = ROUND_UP(end - first, 64) / 8;
		r = savevm_seek(vm, layout->bitmap_at + first / 8);
		r = r ?: savevm_reserve(vm, len);
		if (!r)
			savevm_put(vm, (void *)(present->words + first / 64),
				   len);
	}
	return r;
}

int mapped_ram_end(struct mapped_ram *ram, const void *devstate,
		   size_t devstate_len)
{
	int r = 0;

	for (size_t i = 0; !r && i < ram->n_blocks; i++)
		r = put_bitmap(&ram->vm, &ram->layouts[i]);
	r = r ?: savevm_seek(&ram->vm, ram->devices_at);
	return r ?: savevm_end(&ram->vm, devstate, devstate_len);
}

struct mapped_ram *mapped_ram_free(struct mapped_ram *ram)
{
	if (!ram)
		return NULL;
	for (size_t i = 0; ram->layouts && i < ram->n_blocks; i++)
		bitmap_deinit(&ram->layouts[i].present);
	free(ram->layouts);
	free(ram);
	return NULL;
}
