/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Which regions of the capture engine cover which mappings of a process, kept
 * true while the process goes on mapping and unmapping.
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
 * The process runs: adds a region for whatever is not covered; what was covered
 * and is gone waits for the freeze. *n_added counts the regions.
 */
int cover_add(struct cover *cover, struct capture *capture,
	      const struct layout *layout, const struct mapped_files *files,
	      size_t *n_added);

/* The process stands: drops what is gone, or was replaced, and adds the rest.
 */
int cover_finish(struct cover *cover, struct capture *capture,
		 const struct layout *layout, const struct mapped_files *files);

void cover_deinit(struct cover *cover);

#define _cleanup_cover_ _cleanup_(cover_deinit)
