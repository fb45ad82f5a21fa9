/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A guest's RAM blocks, as HMP `info ramblock` prints them
 * (ram_block_format() in QEMU's softmmu/physmem.c, system/physmem.c): name,
 * page size ("4 KiB", with a space), offset, used, total; from 8.0 also the
 * host address and "ro" or "rw".
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qemu/qmp.h"

/* idstr[256] in QEMU's struct RAMBlock, with its NUL. */
#define RAM_BLOCK_NAME_MAX 255

/*
 * The longest block that a fresh QEMU fills from a file (option ROMs, firmware,
 * tables), so that its zero pages have to be said. Which it does fill, nothing
 * tells. Guest RAM starts as zeros; where it is no longer than that, it does no
 * harm.
 */
#define RAM_BLOCK_FROM_FILE_MAX ((uint64_t)64 << 20)

struct ram_block {
	char *name;	      /* idstr; what a migration stream calls it */
	uint64_t page_size;   /* of the host mapping, in bytes */
	uint64_t offset;      /* in QEMU's ram_addr_t space */
	uint64_t used_length; /* bytes that hold guest memory */
	uint64_t max_length;  /* bytes mapped for it */
	uint64_t host;	      /* address in the target; 0: not known yet */
	/* From ramscan_find(); false and 0 before. */
	bool shared, resizeable, migratable;
	uint64_t struct_addr; /* QEMU's struct RAMBlock in the target */
	uint64_t list_next, list_prev; /* its links, raw */
};

struct ram_blocks {
	struct ram_block *blocks; /* in the order printed */
	size_t n_blocks;
};

/*
 * Parses the text of `info ramblock`. Returns 0, -EPROTO when it is not such a
 * table (a name or a number out of range, blocks that overlap, none at all),
 * or -ENOMEM. Does not log. Every number of a block is a multiple of PAGE_SIZE,
 * and used_length is neither 0 nor above max_length.
 *
 * A block without a name is left out: QEMU migrates none either. (A device's
 * own memory mapped into the guest: a VFIO BAR, a virtio-gpu blob.)
 */
int ram_blocks_parse(const char *text, struct ram_blocks *out);

/* Asks QEMU, and parses; logs what fails. */
int ram_blocks_query(struct qmp *qmp, struct ram_blocks *out);

void ram_blocks_deinit(struct ram_blocks *blocks);

/* The block of that name, or NULL. */
struct ram_block *ram_blocks_find(const struct ram_blocks *blocks,
				  const char *name);
