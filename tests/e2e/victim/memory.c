/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "victim.h"

/*
 * One block of each kind of memory that a core may or may not hold. Each page
 * begins with a text that names it: "NAME PAGE" where it was written, "file
 * PAGE" where it is as it came from the file.
 */

#define BLOCK_PAGES 3

struct block {
	const char *name;
	int flags, prot;
	bool file;
	bool is_huge;	   /* of hugetlb pages */
	bool is_read;	   /* it is not written to */
	int advice, after; /* then: madvise, mprotect */
	char *at;
};

#define READ_WRITE (PROT_READ | PROT_WRITE)

static struct block blocks[] = {
	{ "anon", MAP_PRIVATE, READ_WRITE, .after = READ_WRITE },
	{ "anon-shared", MAP_SHARED, READ_WRITE, .after = READ_WRITE },
	{ "dontdump", MAP_PRIVATE, READ_WRITE, .advice = MADV_DONTDUMP,
	  .after = READ_WRITE },
	{ "file-private", MAP_PRIVATE, PROT_READ, .file = true, .is_read = true,
	  .after = PROT_READ },
	{ "file-shared", MAP_SHARED, PROT_READ, .file = true, .is_read = true,
	  .after = PROT_READ },
	{ "file-written", MAP_PRIVATE, READ_WRITE, .file = true,
	  .after = READ_WRITE },
	{ "none-anon", MAP_PRIVATE, READ_WRITE, .after = PROT_NONE },
	{ "none-shared", MAP_SHARED, READ_WRITE, .after = PROT_NONE },
	{ "none-file", MAP_PRIVATE, READ_WRITE, .file = true,
	  .after = PROT_NONE },
	{ "huge-private", MAP_PRIVATE | MAP_HUGETLB, READ_WRITE,
	  .is_huge = true, .after = READ_WRITE },
	{ "huge-shared", MAP_SHARED | MAP_HUGETLB, READ_WRITE, .is_huge = true,
	  .after = READ_WRITE },
	{ "huge-dontdump", MAP_PRIVATE | MAP_HUGETLB, READ_WRITE,
	  .is_huge = true, .advice = MADV_DONTDUMP, .after = READ_WRITE },
	{ "huge-none", MAP_PRIVATE | MAP_HUGETLB, READ_WRITE, .is_huge = true,
	  .after = PROT_NONE },
};

#define N_BLOCKS (sizeof(blocks) / sizeof(*blocks))

static int make_file(const char *dir)
{
	char path[512], page[PAGE_LEN] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/victim-mapped", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (int i = 0; i < BLOCK_PAGES; i++) {
		snprintf(page, sizeof(page), "file %d", i);
		if (write(fd, page, sizeof(page)) != sizeof(page))
			victim_die("%s: %s", path, strerror(errno));
	}
	return fd;
}

static void make(struct block *block, int fd)
{
	size_t len = block->is_huge ? HUGE_LEN : BLOCK_PAGES * PAGE_LEN;

	block->at = mmap(NULL, len, block->prot,
			 block->flags | (block->file ? 0 : MAP_ANONYMOUS),
			 block->file ? fd : -1, 0);
	if (block->at == MAP_FAILED)
		victim_die("%s: %s", block->name, strerror(errno));
	/* Of a file, a page stays as it is in it. */
	for (int i = block->file ? 1 : 0; !block->is_read && i < BLOCK_PAGES;
	     i++)
		snprintf(block->at + i * PAGE_LEN, PAGE_LEN, "%s %d",
			 block->name, i);
	if ((block->advice && madvise(block->at, len, block->advice)) ||
	    (block->after != block->prot &&
	     mprotect(block->at, len, block->after)))
		victim_die("%s: %s", block->name, strerror(errno));
}

void memory_start(const char *dir, bool huge)
{
	int fd = make_file(dir);

	for (size_t i = 0; i < N_BLOCKS; i++)
		if (huge || !blocks[i].is_huge)
			make(&blocks[i], fd);
	close(fd);
}

void memory_report(void)
{
	for (size_t i = 0; i < N_BLOCKS; i++)
		if (blocks[i].at)
			victim_say("memory %s at=%lu n_pages=%d",
				   blocks[i].name, (unsigned long)blocks[i].at,
				   BLOCK_PAGES);
}

void dirty_start(uint64_t mib, const char *dir)
{
	uint64_t len = mib << 20;
	char path[512], *at;
	int fd;

	snprintf(path, sizeof(path), "%s/victim-dirty-XXXXXX", dir);
	fd = mkstemp(path);
	if (fd < 0 || unlink(path) || ftruncate(fd, (off_t)len))
		victim_die("%s: %s", path, strerror(errno));
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (at == MAP_FAILED)
		victim_die("%s: %s", path, strerror(errno));
	for (uint64_t i = 0; i < len; i += PAGE_LEN)
		victim_stamp((uint64_t *)(at + i), i);
	close(fd);
}
