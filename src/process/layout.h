/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What a process has mapped, and how the bytes of each mapping come into its
 * image. What is left out is what the kernel leaves out of a core dump
 * (core(5), coredump_filter).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "process/files.h"
#include "sys/procfs.h"
#include "sys/smaps.h"
#include "target/target.h"

enum layout_how {
	/* Not in the image. */
	LAYOUT_NONE,
	/* Write-protected, captured while the process runs on. */
	LAYOUT_CAPTURE,
	/* What userfaultfd cannot protect. A private mapping of a file on a
	 * disk: pages that the process has written to are copied in the freeze,
	 * the rest is read from the file later. System V shared memory: all
	 * pages are copied. */
	LAYOUT_COPY,
	/* Read from the file later. */
	LAYOUT_FILE,
};

struct layout_item {
	const struct proc_map *map;
	enum layout_how how;
	uint64_t held;	    /* bytes from the start that the image shall hold */
	uint64_t page_size; /* of the backing, bytes */
	size_t file;	    /* index of its file; meaningless without inode */
};

struct layout {
	struct proc_maps maps;
	struct layout_item *items; /* one a mapping */
};

struct layout_rules {
	uint32_t filter; /* coredump_filter */
	bool all;	 /* whatever can be read */
	/* Of some moment before, ascending; a mapping that is in none is taken
	 * for plain memory. */
	const struct smap *smaps;
	size_t n_smaps;
};

/*
 * Reads the mappings as they are now and decides upon each. Files that were not
 * met before are added to `files`. 0, or an error that is logged;
 * RESULT_UNSUPPORTED for pages of a size that cannot be captured.
 */
int process_layout_read(struct layout *layout, const struct target *target,
			const struct layout_rules *rules,
			struct mapped_files *files);
/* System V shared memory (shmat(2)). */
bool layout_is_sysv(const struct proc_map *map);

void process_layout_deinit(struct layout *layout);

#define _cleanup_layout_ _cleanup_(process_layout_deinit)
