/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What tests of the capture engine have in common: memory of every kind in
 * this very process, which is the target, and what the engine wants to know of
 * a target.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum memory_kind {
	ANON_SMALL,
	ANON_HUGE, /* where the kernel finds huge pages; 4 KiB pages elsewhere
		    */
	MEMFD,
	HUGETLB,
	HUGETLB_MEMFD,
	N_MEMORY_KINDS,
};

extern const char *const memory_kind_names[N_MEMORY_KINDS];

struct memory {
	enum memory_kind kind;
	uint8_t *at;
	size_t len;
	int fd;		    /* -1: anonymous */
	uint64_t fd_offset; /* of `at` */
	void *mapping;	    /* NULL: this is a part of another's */
	size_t mapping_len;
};

/*
 * Maps `len` bytes that begin `skew_pages` behind the border of an extent; for
 * hugetlb both are rounded to huge pages. False when there is no such memory
 * here.
 */
bool memory_map(struct memory *memory, enum memory_kind kind, size_t len,
		unsigned skew_pages);
void memory_unmap(struct memory *memory);

/* The descriptors of this process that a capture_space asks for. */
struct self {
	int proc_fd, pidfd, pagemap_fd;
};

void self_open(struct self *self);
void self_close(struct self *self);

/* A userfaultfd with what the engine needs; skips the test without one. */
int open_uffd(bool *markers);

/* xorshift64: *seed must not be 0. */
static inline uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}
