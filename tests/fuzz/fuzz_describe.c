/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image_input.h"
#include "process/describe.h"
#include "snapuffd/image-format.h"

/* The numbers are the kernel's, fuzz_stat.c has those; the name is not. */
static void put_numbers(struct fuzz_part name)
{
	static const char status[] = "Name:\tit\nUid:\t1\t2\t3\t4\n"
				     "Gid:\t1\t2\t3\t4\nGroups:\t4 5 \n"
				     "CapPrm:\tff\nCapEff:\tff\n";
	char *text = fuzz_string(name), *stat;
	int n = asprintf(&stat,
			 "1 (%s) R 1 412 400 0 -1 4194560 100 0 0 0 55 66 0 0 "
			 "20 -7 3 0\n",
			 text);

	fuzz_require(n >= 0);
	fuzz_put("stat", (struct fuzz_part){ (uint8_t *)stat, (size_t)n });
	fuzz_put("status",
		 (struct fuzz_part){ (uint8_t *)status, strlen(status) });
	free(stat);
	free(text);
}

/* Descriptor 3 leads to a name of the input's. */
static void put_fd(struct fuzz_part name)
{
	char *text = fuzz_string(name);

	mkdirat(fuzz_dir(), "fd", 0700);
	mkdirat(fuzz_dir(), "fdinfo", 0700);
	unlinkat(fuzz_dir(), "fd/3", 0);
	/* Refused: empty, or too long. */
	if (symlinkat(text, fuzz_dir(), "fd/3"))
		unlinkat(fuzz_dir(), "fd/3", 0);
	free(text);
}

/* Whatever a process says of itself, its image can be read again. */
static void check(struct image_process *process)
{
	struct image_frame_sums none = {}, sums;
	struct image_process again;
	struct record record = {};

	fuzz_require(!encode_process(&record, process, &none));
	record.pos = sizeof(uint32_t);
	fuzz_require(!decode_process(&record, &again, &sums));
	fuzz_require(again.n_args == process->n_args &&
		     again.n_env == process->n_env &&
		     again.n_fds == process->n_fds);
	image_process_deinit(&again);
	record_deinit(&record);
}

/* The texts of /proc/PID that come into the image of a process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_input input = FUZZ_INPUT(data, len);
	struct image_process process = {};
	struct target target = TARGET_INIT;

	target.pid = 1;
	target.proc_fd = fuzz_dir();
	put_numbers(fuzz_next_part(&input));
	fuzz_put("cmdline", fuzz_next_part(&input));
	fuzz_put("environ", fuzz_next_part(&input));
	fuzz_put("auxv", fuzz_next_part(&input));
	fuzz_put("coredump_filter", fuzz_next_part(&input));
	put_fd(fuzz_next_part(&input));
	fuzz_put("fdinfo/3", fuzz_next_part(&input));
	if (!describe_process(&process, &target))
		check(&process);
	image_process_deinit(&process);
	return 0;
}
