/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Who else has the same files mapped, shared and writable: what such a process
 * writes changes memory that it is no thread of. Of processes that may not be
 * looked at nothing is known. No logging.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sys/procfs.h"

/* One process, and the first of the mappings that it shares. What it returns,
 * if not 0, ends the walk. */
typedef int (*sharers_fn)(void *opaque, pid_t pid, const char *name,
			  const struct proc_map *map);

/* Passed over are the processes of `except`, this one, and whoever was started
 * before `since_ns` (procstat_now_ns(); 0: nobody). 0, -errno, or what `fn`
 * returned. */
int sharers_walk(const struct proc_map *const *maps, size_t n_maps,
		 const pid_t *except, size_t n_except, uint64_t since_ns,
		 sharers_fn fn, void *opaque);
