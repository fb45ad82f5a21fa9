/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What /proc/PID/smaps knows of a mapping and maps does not. Reading it walks
 * the page tables, some milliseconds a GiB: never while the target stands.
 */

#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

/* VmFlags (Documentation/filesystems/proc.rst). */
enum smap_flags {
	SMAP_DONTDUMP = 1, /* dd: MADV_DONTDUMP */
	SMAP_DEVICE = 2,   /* io or pf: not memory that could be read */
	SMAP_MAYWRITE = 4, /* mw */
	SMAP_UFFD = 8,	   /* um, uw or ui: a userfaultfd is registered */
};

struct smap {
	struct range range;
	unsigned flags;
	uint64_t page_size; /* of the backing, bytes */
	uint64_t resident;  /* bytes that it has mapped */
	uint64_t anonymous; /* bytes of its own, not the file's */
};

/* Ascending; to be freed. 0, -ESRCH, -EPROTO, or -errno; no logging. */
int smaps_read(int proc_fd, struct smap **smaps, size_t *n);

/* The one that holds `addr`, or NULL. */
const struct smap *smaps_find(const struct smap *smaps, size_t n,
			      uint64_t addr);
