/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

/*
 * Holes where the kernel has no markers (before Linux 6.4). Of anonymous memory
 * only pages that exist can be protected there, and the first write to another
 * one would not be noticed. So of an extent that is armed all pages come to be:
 * a read puts the shared zero page where there is none, which costs no memory
 * but the page table that is there already.
 *
 * A hole of the frozen instant is none of ours, whoever writes to it later. So
 * it is done only while the target runs. What it discards after that is a hole
 * again; that is known, and looked at in the freeze.
 *
 * Memory that may not be read may be written to later (a heap grows by
 * mprotect), so it is read all the same.
 */

#include <errno.h>

#include "sys/vmio.h"

/* One byte of each, so many with one call. */
#define BATCH 64

static int touch_one(const struct space *space, const struct range *byte)
{
	uint8_t to;
	size_t n_read;
	int r = vm_read_ranges(space->desc.pid, byte, 1, &to, &n_read);

	if (r == -EFAULT && space->desc.mem_fd >= 0)
		r = vm_read_ranges_forced(space->desc.mem_fd, byte, 1, &to);
	return r;
}

static int touch(const struct capture *capture, const struct region *region,
		 const struct range *bytes, size_t n)
{
	const struct space *space = region->space;
	uint8_t to[BATCH];
	size_t n_read;
	int r = n ? vm_read_ranges(space->desc.pid, bytes, n, to, &n_read) : 0;

	if (r != -EFAULT)
		return r;
	for (size_t i = 0; i < n; i++) {
		r = touch_one(space, &bytes[i]);
		/* Of what has gone, protecting it tells. */
		if (r && !(r == -EFAULT && capture->config.mappings_change))
			return r;
	}
	return 0;
}

int holes_fill(const struct capture *capture, const struct region *region,
	       struct range range)
{
	uint64_t end = region_page(region, range.end);
	uint64_t page = region_page(region, range.start);
	struct range bytes[BATCH];
	size_t n = 0;
	int r = 0;

	/* Files and hugetlb have markers since they can be protected at all. */
	if (capture->config.markers || capture->is_taken ||
	    !region_is_sparse(region))
		return 0;
	for (; !r &&
	       (page = bitmap_find_clear(&region->populated, page, end)) < end;
	     page++) {
		uint64_t addr = region_addr(region, page);

		bytes[n++] = (struct range){ addr, addr + 1 };
		if (n < BATCH)
			continue;
		r = touch(capture, region, bytes, n);
		n = 0;
	}
	if (!r)
		r = touch(capture, region, bytes, n);
	/* The process is gone: protecting its memory tells. */
	return !r || r == -ESRCH ? 0 : capture_copy_failed(region, range, r);
}
