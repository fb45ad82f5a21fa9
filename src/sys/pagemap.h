/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Which pages of a target exist: PAGEMAP_SCAN (Linux 6.7,
 * Documentation/admin-guide/mm/pagemap.rst) or, before, the words of
 * /proc/PID/pagemap. Neither touches a page.
 */

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

enum pagemap_flags {
	PAGEMAP_PRESENT = 1, /* mapped, and not by the shared zero page */
	PAGEMAP_SWAPPED = 2, /* in swap, or only a marker of protection */
	PAGEMAP_HUGE = 4,    /* mapped by a page-table directory entry */
};

/*
 * Called for each run of pages with the same flags, ascending; pages that do
 * not exist are left out. What it returns, if not 0, ends the walk.
 */
typedef int (*pagemap_fn)(struct range run, unsigned flags, void *data);

/* Opens /proc/PID/pagemap; returns a descriptor or -errno. */
int pagemap_open(int proc_fd);

/* True if the kernel has PAGEMAP_SCAN (asked of the descriptor). */
bool pagemap_can_scan(int pagemap_fd);

/* Walks a page-aligned range of the target. 0, -errno, or what fn returned. */
int pagemap_walk(int pagemap_fd, struct range range, pagemap_fn fn, void *data);

/* The same for the pages that are the process's own and no file's: in a private
 * mapping those that it has written to. */
int pagemap_walk_own(int pagemap_fd, struct range range, pagemap_fn fn,
		     void *data);

/* The same for the pages that userfaultfd does not write-protect. */
int pagemap_walk_unprotected(int pagemap_fd, struct range range, pagemap_fn fn,
			     void *data);

/* The same for those that it does, mere markers and the zero page included. */
int pagemap_walk_protected(int pagemap_fd, struct range range, pagemap_fn fn,
			   void *data);
