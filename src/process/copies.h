/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The pages that are copied while the process stands, since nothing can protect
 * them: those of LAYOUT_COPY that are its own and no file's. Mostly the data
 * segments of its program and libraries, some hundred KiB.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/util.h"
#include "process/layout.h"

struct copies {
	pid_t pid;
	int mem_fd;	    /* its /proc/PID/mem */
	struct range *runs; /* in the process; ascending */
	size_t n_runs, max_runs;
	uint8_t *data; /* of all runs, one behind the other; page-aligned */
	uint64_t len, size;
};

/*
 * Finds out which pages there are, and makes room for them and for some more;
 * the process runs. 0 or an error that is logged.
 */
int copies_prepare(struct copies *copies, int pagemap_fd,
		   const struct layout *layout,
		   const struct mapped_files *files);

/* The same look again, and the copy; the process stands. */
int copies_take(struct copies *copies, int pagemap_fd,
		const struct layout *layout, const struct mapped_files *files);

void copies_deinit(struct copies *copies);

#define _cleanup_copies_ _cleanup_(copies_deinit)
