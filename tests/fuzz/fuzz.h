/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the fuzz targets have in common. A target is a file with one
 * LLVMFuzzerTestOneInput(), for libFuzzer or for driver.c; it calls a parser
 * the way the program does, and aborts where that breaks its own promise
 * (fuzz_require()), beside what the sanitizers see.
 *
 * fuzz.c has the log of base/log.h in here: messages are formatted, so that
 * their arguments are looked at, and dropped.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define fuzz_require(condition)   \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

/* An input that is several texts or files: a line "%%" parts them,
 * and the end of the line before it is none of theirs. */
struct fuzz_input {
	const uint8_t *data;
	size_t len;
	bool ended;
};

#define FUZZ_INPUT(data, len) ((struct fuzz_input){ data, len, false })

/* The next part, which is empty behind the last one. */
struct fuzz_part {
	const uint8_t *data;
	size_t len;
};

struct fuzz_part fuzz_next_part(struct fuzz_input *input);

/* A part as a string; it ends at a NUL. To be freed. */
char *fuzz_string(struct fuzz_part part);

/* An empty directory in memory, the same one for the life of the process, which
 * removes it at its end. Returns its descriptor. */
int fuzz_dir(void);
const char *fuzz_dir_path(void);

/* Makes a file in there what the part is, or removes it when that is empty. */
void fuzz_put(const char *name, struct fuzz_part part);

/* Takes output and does nothing with it: a savevm_sink's. */
int fuzz_sink(void *opaque, uint64_t at, const void *buf, size_t len);
