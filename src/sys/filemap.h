/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Files that are memory (tmpfs, memfd, hugetlbfs), read through a mapping of
 * ours that tells holes from pages of zeros. No read of it fills a hole. Reads
 * are as fast as from any mapping, and take no more rights than to read the
 * file.
 *
 * A userfaultfd that answers faults on holes with SIGBUS does it (Linux 4.14,
 * Documentation/admin-guide/mm/userfaultfd.rst). Whoever punches a hole
 * (fallocate(2), MADV_REMOVE) takes its pages out of all mappings first, also
 * out of ours: what is read is always of a page that the file still had. No
 * look at the file before or after a read could say that, and of hugetlbfs no
 * look tells anything.
 *
 * A hole may be filled with zeros before it is read: whoever else reads it does
 * that. Of hugetlbfs, which nobody swaps out, pages are *held* from the first
 * look on: mapped, and what is not is not read, be it in the file or not
 * (minor faults, Linux 5.13). A page that was put there anew is not held.
 *
 * No logging. Any thread may read.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct filemap {
	uint8_t *at; /* NULL: nothing is mapped */
	size_t len;
	int uffd;
	bool holds; /* it is hugetlbfs */
};

/* A userfaultfd of our own, for any number of mappings. -errno. */
int filemap_open(void);

/*
 * Maps `len` bytes of a file that is open for reading; `fd` may be closed
 * after. `page_size` is PMD_SIZE for hugetlbfs. -EINVAL: the file is none that
 * is memory.
 */
int filemap_init(struct filemap *map, int uffd, int fd, uint64_t offset,
		 size_t len, uint64_t page_size);
void filemap_deinit(struct filemap *map);

/* Whether there is a huge page at `at`, not a hole nor the end of the file.
 * From now on it is held. */
bool filemap_hold(const struct filemap *map, size_t at);

/* 0; -ENOENT when some of it is a hole, or behind the file's end, or a huge
 * page that is not held. */
int filemap_read(const struct filemap *map, size_t at, void *to, size_t len);
