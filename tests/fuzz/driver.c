/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"
#include "base/util.h"
#include "fuzz.h"

/*
 * Runs a fuzz target, without libFuzzer, on every file that is named or below a
 * directory that is named, and on what is left of each when it is cut short: a
 * test of what the fuzzer starts from, and of what it has found.
 */

/* How often one is cut. */
#define N_CUTS 64

static unsigned n_files;

static int run_file(const char *path, const struct stat *st, int type,
		    struct FTW *place)
{
	char *text;
	size_t len;

	(void)st;
	(void)place;
	if (type != FTW_F)
		return 0;
	if (io_read_file(AT_FDCWD, path, 16 * MIB, &text, &len)) {
		fprintf(stderr, "%s: cannot be read\n", path);
		return 1;
	}
	/* In the log, should it crash; stdout may be the target's. */
	fprintf(stderr, "%s\n", path);
	n_files++;
	for (size_t cut = 0; cut < N_CUTS; cut++) {
		size_t left = len - len * cut / N_CUTS;
		/* Of its own size, so that a byte too far is seen. */
		uint8_t *copy = malloc(left + !left);

		fuzz_require(copy);
		memcpy(copy, text, left);
		LLVMFuzzerTestOneInput(copy, left);
		free(copy);
	}
	free(text);
	return 0;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (nftw(argv[i], run_file, 16, FTW_PHYS)) {
			fprintf(stderr, "%s: failed\n", argv[i]);
			return 1;
		}
	fprintf(stderr, "%u inputs, each whole and cut at %d places\n", n_files,
		N_CUTS - 1);
	return !n_files;
}
