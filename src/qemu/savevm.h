/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What is around the RAM in everything that QEMU's -incoming loads, whichever
 * way the pages are in it: header, configuration, the start and end of section
 * "ram", the devices. With it, the buffered writer that the formats put the
 * rest with. Format: migration/savevm.c, migration/ram.c in QEMU's tree.
 *
 *   begin -> put_block for each block, and what the format adds -> end
 *
 * One thread at a time.
 */

#include <stddef.h>
#include <stdint.h>

#include "qemu/ramblock.h"

/* migration/ram.c: a record's be64 is an offset, with flags in its low bits. */
#define RAM_ZERO     0x02u
#define RAM_MEM_SIZE 0x04u
#define RAM_PAGE     0x08u
#define RAM_EOS	     0x10u
#define RAM_CONTINUE 0x20u

/* The most that savevm_reserve() can be asked for. Large writes, but a buffer
 * that stays in the processor's cache. */
#define SAVEVM_BUF_LEN ((size_t)1 << 20)

/*
 * Where the bytes go: `at` is their place in the file. Without a seek that is
 * always where the last ones ended, so a pipe needs not look at it. 0, or
 * -errno after it has logged.
 */
struct savevm_sink {
	int (*write)(void *opaque, uint64_t at, const void *buf, size_t len);
	void *opaque;
};

struct savevm {
	struct savevm_sink sink;
	const struct ram_blocks *blocks;
	uint64_t flushed; /* bytes: where in the file the buffer begins */
	size_t used;
	int error; /* a sink that failed once is not asked again */
	uint8_t buf[SAVEVM_BUF_LEN];
};

/*
 * Everything up to the list of blocks. `machine` is the machine class
 * ("pc-i440fx-7.2"); `capability` the one that the destination must have set,
 * or NULL. -EINVAL, logged, for names and lengths that the format can't say.
 * `blocks` must live as long as `vm`, of which nothing has to be freed.
 */
int savevm_begin(struct savevm *vm, const struct savevm_sink *sink,
		 const char *machine, const char *capability,
		 const struct ram_blocks *blocks);

/* One block of the list: due for each that is migratable, in order. */
int savevm_put_block(struct savevm *vm, const struct ram_block *block);

/*
 * Ends RAM and adds the devices: `devstate` is the whole file that
 * xen-save-devices-state wrote. Flushes.
 */
int savevm_end(struct savevm *vm, const void *devstate, size_t devstate_len);

/* Whether these pages are within the used length of a migratable block, and
 * `offset` one of a page: 0, or -ERANGE, logged. */
int savevm_check_pages(const struct savevm *vm, size_t block, uint64_t offset,
		       size_t n_pages);

/* Where in the file the next byte goes. */
uint64_t savevm_position(const struct savevm *vm);

/* What comes next goes to `at`; what is skipped is a hole. */
int savevm_seek(struct savevm *vm, uint64_t at);

/* Room for `len` bytes, which the put functions do not check. */
int savevm_reserve(struct savevm *vm, size_t len);
void savevm_put(struct savevm *vm, const void *data, size_t len);
void savevm_put_u8(struct savevm *vm, uint8_t value);
void savevm_put_be32(struct savevm *vm, uint32_t value);
void savevm_put_be64(struct savevm *vm, uint64_t value);
/* A length of one byte, then the text without its NUL. */
void savevm_put_name(struct savevm *vm, const char *name);
