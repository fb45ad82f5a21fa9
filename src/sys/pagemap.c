/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/io.h"

/* include/uapi/linux/fs.h, Linux 6.7; the names are ours for older headers
 * lack them. */
struct pm_scan {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

struct pm_region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

#define PM_SCAN_IOCTL _IOWR('f', 16, struct pm_scan)

#define PM_CAT_WRITTEN (1 << 1) /* not protected by userfaultfd */
#define PM_CAT_FILE    (1 << 2)
#define PM_CAT_PRESENT (1 << 3)
#define PM_CAT_SWAPPED (1 << 4)
#define PM_CAT_PFNZERO (1 << 5)
#define PM_CAT_HUGE    (1 << 6)

/* Words of /proc/PID/pagemap. */
#define PM_WORD_PRESENT ((uint64_t)1 << 63)
#define PM_WORD_SWAPPED ((uint64_t)1 << 62)
#define PM_WORD_FILE	((uint64_t)1 << 61) /* or shared anonymous */
#define PM_WORD_UFFD_WP ((uint64_t)1 << 57) /* since 5.13 */

int pagemap_open(int proc_fd)
{
	int fd = openat(proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Which pages a walk is for, beside that they exist. */
enum which {
	WHICH_ANY,
	WHICH_UNPROTECTED,
	WHICH_PROTECTED,
	WHICH_OWN,
};

static uint64_t not_these(enum which which)
{
	switch (which) {
	case WHICH_OWN:
		return PM_CAT_PFNZERO | PM_CAT_FILE;
	case WHICH_PROTECTED:
		return PM_CAT_WRITTEN;
	/* The zero page is what a read leaves where a protected page was
	 * discarded. */
	case WHICH_UNPROTECTED:
		return 0;
	case WHICH_ANY:
		break;
	}
	return PM_CAT_PFNZERO;
}

static int scan(int fd, struct range range, enum which which,
		struct pm_region *vec, size_t n, uint64_t *walked_to)
{
	struct pm_scan arg = {
		.size = sizeof(arg),
		.start = range.start,
		.end = range.end,
		.vec = (uintptr_t)vec,
		.vec_len = n,
		.category_inverted = not_these(which),
		.category_mask = which == WHICH_UNPROTECTED ? PM_CAT_WRITTEN
							    : not_these(which),
		.category_anyof_mask = PM_CAT_PRESENT | PM_CAT_SWAPPED,
		.return_mask = PM_CAT_PRESENT | PM_CAT_SWAPPED | PM_CAT_HUGE,
	};
	int r;

	do {
		r = ioctl(fd, PM_SCAN_IOCTL, &arg);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	*walked_to = arg.walk_end;
	return r;
}

bool pagemap_can_scan(int pagemap_fd)
{
	struct range nothing = { 0, 0 };
	uint64_t walked_to;

	return scan(pagemap_fd, nothing, WHICH_ANY, NULL, 0, &walked_to) >= 0;
}

static int walk_by_scan(int fd, struct range range, enum which which,
			pagemap_fn fn, void *data)
{
	struct pm_region vec[512];

	while (range.start < range.end) {
		uint64_t walked_to;
		int n = scan(fd, range, which, vec, ARRAY_SIZE(vec),
			     &walked_to);

		if (n < 0)
			return n;
		for (int i = 0; i < n; i++) {
			struct range run = { vec[i].start, vec[i].end };
			unsigned flags = 0;
			int r;

			if (vec[i].categories & PM_CAT_PRESENT)
				flags |= PAGEMAP_PRESENT;
			if (vec[i].categories & PM_CAT_SWAPPED)
				flags |= PAGEMAP_SWAPPED;
			if (vec[i].categories & PM_CAT_HUGE)
				flags |= PAGEMAP_HUGE;
			r = fn(run, flags, data);
			if (r)
				return r;
		}
		if (walked_to <= range.start)
			return -EPROTO;
		range.start = walked_to;
	}
	return 0;
}

static int walk_by_words(int fd, struct range range, enum which which,
			 pagemap_fn fn, void *data)
{
	uint64_t words[2048];
	struct range run = { 0, 0 };
	unsigned run_flags = 0;
	int r;

	while (range.start < range.end) {
		uint64_t n = min_u64(ARRAY_SIZE(words),
				     range_len(range) >> PAGE_SHIFT);

		r = io_pread_full(fd, words, n * sizeof(*words),
				  (range.start >> PAGE_SHIFT) * sizeof(*words));
		if (r)
			return r;
		for (uint64_t i = 0; i < n; i++, range.start += PAGE_SIZE) {
			unsigned flags = 0;

			if (words[i] & PM_WORD_PRESENT)
				flags |= PAGEMAP_PRESENT;
			if (words[i] & PM_WORD_SWAPPED)
				flags |= PAGEMAP_SWAPPED;
			if (which == WHICH_UNPROTECTED &&
			    words[i] & PM_WORD_UFFD_WP)
				flags = 0;
			if (which == WHICH_PROTECTED &&
			    !(words[i] & PM_WORD_UFFD_WP))
				flags = 0;
			if (which == WHICH_OWN && words[i] & PM_WORD_FILE)
				flags = 0;
			if (flags == run_flags) {
				run.end = range.start + PAGE_SIZE;
				continue;
			}
			if (run_flags) {
				r = fn(run, run_flags, data);
				if (r)
					return r;
			}
			run.start = range.start;
			run.end = range.start + PAGE_SIZE;
			run_flags = flags;
		}
	}
	return run_flags ? fn(run, run_flags, data) : 0;
}

static int walk(int fd, struct range range, enum which which, pagemap_fn fn,
		void *data)
{
	int r = walk_by_scan(fd, range, which, fn, data);

	if (r == -ENOTTY)
		r = walk_by_words(fd, range, which, fn, data);
	return r;
}

int pagemap_walk(int pagemap_fd, struct range range, pagemap_fn fn, void *data)
{
	return walk(pagemap_fd, range, WHICH_ANY, fn, data);
}

int pagemap_walk_unprotected(int pagemap_fd, struct range range, pagemap_fn fn,
			     void *data)
{
	return walk(pagemap_fd, range, WHICH_UNPROTECTED, fn, data);
}

int pagemap_walk_protected(int pagemap_fd, struct range range, pagemap_fn fn,
			   void *data)
{
	return walk(pagemap_fd, range, WHICH_PROTECTED, fn, data);
}

int pagemap_walk_own(int pagemap_fd, struct range range, pagemap_fn fn,
		     void *data)
{
	return walk(pagemap_fd, range, WHICH_OWN, fn, data);
}
