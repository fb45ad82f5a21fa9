/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The files that a process maps, each opened once and kept open, so that their
 * bytes can be read when the process has long unmapped them.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "target/target.h"

struct mapped_file {
	dev_t dev; /* as /proc/PID/maps shows it */
	ino_t inode;
	int fd;		    /* -1: it could not be opened */
	bool is_memory;	    /* tmpfs, memfd or hugetlbfs: it has no disk */
	uint64_t page_size; /* of the memory that it is; hugetlbfs: not 4 KiB */
	bool is_elf;	    /* begins with an ELF header */
	char *build_id;	    /* hexadecimal, or NULL */
	bool left_out;	    /* a warning said so */
	bool know_build_id; /* it was looked for */
};

struct mapped_files {
	struct mapped_file *files;
	size_t n_files;
};

/* The file behind a mapping; opened now if it was not met before. NULL only
 * when there is no memory. */
struct mapped_file *mapped_files_get(struct mapped_files *files,
				     const struct target *target,
				     const struct proc_map *map);

/* Looks for its build id, once. */
const char *mapped_file_build_id(struct mapped_file *file);

void mapped_files_deinit(struct mapped_files *files);

#define _cleanup_mapped_files_ _cleanup_(mapped_files_deinit)
