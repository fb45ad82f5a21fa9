/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Reads a migration stream back: written from the same description of the
 * format as the writer, with which it shares no code. Whatever is wrong fails
 * the test.
 */

#include "unit.h"

#include "qemu/ramblock.h"

#define READER_MACHINE	  "pc-i440fx-7.2"
#define READER_BLOCKS_MAX 4
/* What memory holds of which the stream says nothing. */
#define READER_UNTOUCHED  0xee

/* A device state as xen-save-devices-state writes it; a stream ends with what
 * is between its header and its end. */
extern const uint8_t reader_devstate[16];

/* Where a stream is written to. */
struct memory_sink {
	uint8_t *data;
	size_t len;
	size_t n_writes;
	size_t fail_at; /* bytes; 0: never */
};

/* A savevm_sink's write. */
int memory_sink_write(void *opaque, uint64_t at, const void *buf, size_t len);

/* A position, and what the stream left in the guest's memory. */
struct reader {
	const uint8_t *at, *end;
	const struct ram_blocks *blocks;
	uint8_t *ram[READER_BLOCKS_MAX]; /* NULL: not in the stream */
	unsigned n_pages, n_zero, n_names;
};

/* A whole stream of READER_MACHINE, `blocks` and `reader_devstate`. */
void reader_read(struct reader *reader, const struct memory_sink *sink,
		 const struct ram_blocks *blocks);

/* Frees what both hold. */
void reader_free(struct reader *reader, struct memory_sink *sink);
