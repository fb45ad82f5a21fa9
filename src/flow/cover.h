/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Which regions of the capture engine cover which mappings of a process. Both
 * times that it is looked at the process stands: userfaultfd splits a mapping
 * of which a part is registered, and the process would notice (mremap(2) fails
 * with EFAULT on two).
 *
 * Neighbouring mappings of private anonymous memory are one region. Of a very
 * large one, mostly address space that was only reserved, just the populated
 * gigabytes are covered, so that no bitmap is larger than what it is for.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/util.h"
#include "capture/capture.h"
#include "process/layout.h"

struct cover_part {
	struct range range;
	/* Of the memory in it: where it is in which file; `file_id` 0: none. */
	uint64_t file_id;
	uint64_t file_offset; /* of range.start */
	uint64_t page_size;
	bool shared;
	size_t file; /* index into the files, if there is one */
};

struct cover {
	unsigned space;
	int pagemap_fd;
	pid_t pid;
	struct cover_part *parts; /* ascending, not overlapping */
	size_t n_parts;
};

/*
 * The process stands, for the first time: registers all its mappings that are
 * to be captured, and adds regions for them. They are protected when it runs
 * again.
 */
int cover_begin(struct cover *cover, struct capture *capture,
		const struct layout *layout, const struct mapped_files *files);

/* It stands in the instant: drops what is gone, or was replaced, and registers
 * and adds the rest. */
int cover_finish(struct cover *cover, struct capture *capture,
		 const struct layout *layout, const struct mapped_files *files);

void cover_deinit(struct cover *cover);

#define _cleanup_cover_ _cleanup_(cover_deinit)
