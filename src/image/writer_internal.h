/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <pthread.h>

#include "base/pace.h"
#include "image/codec.h"
#include "image/partial_dir.h"
#include "image/pwriter.h"
#include "image/writer.h"

struct pages_file {
	int fd;
	int direct_fd; /* the same file with O_DIRECT, or -1 */
};

#define PAGES_FILE_INIT ((struct pages_file){ -1, -1 })

struct writer_region {
	struct image_region desc; /* runs: all that were put, any order */
	size_t runs_size;
	struct pages_file own; /* closed when it is in memory.core */
};

struct image_writer {
	struct partial_dir dir;

	/* A region stays where it is, the array does not: the lock is for that,
	 * and for the end of memory.core. */
	pthread_mutex_t lock;
	struct writer_region **regions;
	size_t n_regions, regions_size;

	struct pages_file core;
	uint64_t core_end; /* 0: every region has its own file */
	uint64_t core_len; /* of the file; whoever puts pages sets it */
	bool has_process;  /* no region may be added any more */

	struct image_part *parts;
	size_t n_parts;

	struct image_writer_options options;
	struct pwriter *pwriter;
	struct pace pace;
	bool direct;
	_Atomic uint64_t data_pages;
};

/* Closes its files and frees it. Returns NULL. */
struct writer_region *writer_region_free(struct writer_region *region);
void pages_file_close(struct pages_file *file);
