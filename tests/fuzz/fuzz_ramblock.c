/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <string.h>

#include "base/util.h"
#include "qemu/ramblock.h"

static void check(const struct ram_block *block)
{
	fuzz_require(block->name && strlen(block->name) <= RAM_BLOCK_NAME_MAX);
	fuzz_require(block->used_length &&
		     block->used_length <= block->max_length);
	fuzz_require(!((block->used_length | block->max_length | block->offset |
			block->host | block->page_size) %
		       PAGE_SIZE));
	fuzz_require(block->offset <= UINT64_MAX - block->max_length);
	fuzz_require(block->host <= UINT64_MAX - block->max_length);
}

/* The text of `info ramblock`. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	char *text = fuzz_string(part);
	struct ram_blocks blocks;

	if (!ram_blocks_parse(text, &blocks)) {
		fuzz_require(blocks.n_blocks);
		for (size_t i = 0; i < blocks.n_blocks; i++)
			check(&blocks.blocks[i]);
		ram_blocks_deinit(&blocks);
	}
	free(text);
	return 0;
}
