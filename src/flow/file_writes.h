/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * write(2) and its like to a file that is memory of the target, a memfd or one
 * on tmpfs: it changes what the target has mapped, and is no fault. It is not
 * held back, but told of.
 *
 *	file_writes_begin	running: from before the instant
 *	file_writes_instant	standing
 *	file_writes_list	all is captured
 *
 * Of most files inotify tells. Of a memfd it does not on newer kernels; there
 * only its time, which a write to a mapping changes as well, and whether
 * somebody who has it open for writing has made any such call: it *may* have
 * been.
 *
 * What is not seen: a memfd that somebody opens for writing later, or changes
 * by io_uring, AIO or splice(2). All return 0, or -errno after one error line.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/cleanup.h"
#include "process/files.h"
#include "qemu/vm.h"

/* By the index of the file. */
struct file_write {
	int number;    /* of the watch; -1: none */
	bool is_blind; /* that tells nothing */
	bool is_seen;
	struct timespec changed; /* at the instant */
};

/* Who has a blind one open for writing. */
struct file_holder {
	size_t file;
	pid_t pid;
	char name[16];
	uint64_t n_calls; /* that write, whatever they write to; until the
			     instant */
};

struct file_writes {
	const struct mapped_files *files;
	int watch_fd;
	struct file_write *writes;
	size_t n;
	struct file_holder *holders;
	size_t n_holders;
	struct timespec instant; /* by the clock of files */
};

#define FILE_WRITES_INIT        \
	{                       \
		.watch_fd = -1, \
	}

/* Whether the engine captures some of a file. */
typedef bool (*file_writes_used_fn)(void *opaque, size_t file);

/* `files` may grow until the instant. */
int file_writes_begin(struct file_writes *writes,
		      const struct mapped_files *files);
int file_writes_instant(struct file_writes *writes);

/* Appends a line for each that was, or may have been, written to since. */
int file_writes_list(struct file_writes *writes, file_writes_used_fn used,
		     void *opaque, struct vm_strings *certain,
		     struct vm_strings *maybe);

void file_writes_deinit(struct file_writes *writes);

#define _cleanup_file_writes_ _cleanup_(file_writes_deinit)
