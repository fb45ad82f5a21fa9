/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A process to be dumped, held by descriptors that go on meaning this very
 * process when its pid is used again. Nothing here touches the target.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "sys/procfs.h"

struct target {
	pid_t pid;
	int pidfd;
	int proc_fd; /* /proc/PID */
	struct proc_status status;
};

#define TARGET_INIT ((struct target){ .pidfd = -1, .proc_fd = -1 })

/*
 * Opens a process and refuses, with RESULT_UNSUPPORTED and one line, what
 * cannot be a target: none of that pid, ourselves, a kernel thread, a zombie,
 * one whose main thread has exited, a 32-bit program, one that is stopped or
 * traced, one that the caller may not trace.
 */
int target_open(struct target *target, pid_t pid);
void target_close(struct target *target);

#define _cleanup_target_ _cleanup_(target_close)

/* Reads the mappings; logs. */
int target_read_maps(const struct target *target, struct proc_maps *maps);

/*
 * Opens, read-only, the file that is mapped there, deleted or not; returns a
 * descriptor or -errno, logged.
 */
int target_open_mapped_file(const struct target *target,
			    const struct proc_map *map);

/* The same without a word: it may be left out. */
int target_try_open_mapped_file(const struct target *target,
				const struct proc_map *map);
