/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "world.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "sys/pagemap.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/uffd.h"

const char *const memory_kind_names[N_MEMORY_KINDS] = {
	[ANON_SMALL] = "4K",
	[ANON_HUGE] = "THP",
	[MEMFD] = "memfd",
	[HUGETLB] = "hugetlb",
	[HUGETLB_MEMFD] = "hugetlb-memfd",
};

static bool is_hugetlb(enum memory_kind kind)
{
	return kind == HUGETLB || kind == HUGETLB_MEMFD;
}

static bool open_memfd(struct memory *memory)
{
	unsigned flags = is_hugetlb(memory->kind) ? MFD_HUGETLB : 0;

	memory->fd = memfd_create("test", MFD_CLOEXEC | flags);
	if (memory->fd < 0 ||
	    ftruncate(memory->fd, (off_t)memory->mapping_len)) {
		close_fd(&memory->fd);
		return false;
	}
	return true;
}

bool memory_map(struct memory *memory, enum memory_kind kind, size_t len,
		unsigned skew_pages)
{
	bool hugetlb = is_hugetlb(kind);
	bool file = kind == MEMFD || kind == HUGETLB_MEMFD;
	size_t skew = hugetlb ? 0 : skew_pages * PAGE_SIZE;
	uint8_t *mapping;

	len = ROUND_UP(len, hugetlb ? PMD_SIZE : PAGE_SIZE);
	*memory = (struct memory){
		.kind = kind,
		.len = len,
		.fd = -1,
		.mapping_len = hugetlb ? len : len + skew + PMD_SIZE,
	};
	if (file && !open_memfd(memory))
		return false;
	mapping = mmap(NULL, memory->mapping_len, PROT_READ | PROT_WRITE,
		       file	 ? MAP_SHARED
		       : hugetlb ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB
				 : MAP_PRIVATE | MAP_ANONYMOUS,
		       memory->fd, 0);
	if (mapping == MAP_FAILED) {
		close_fd(&memory->fd);
		return false;
	}
	if (kind == ANON_HUGE)
		madvise(mapping, memory->mapping_len, MADV_HUGEPAGE);
	if (kind == ANON_SMALL)
		madvise(mapping, memory->mapping_len, MADV_NOHUGEPAGE);
	memory->mapping = mapping;
	memory->at = (uint8_t *)ROUND_UP((uintptr_t)mapping, PMD_SIZE) + skew;
	if (file)
		memory->fd_offset = (uint64_t)(memory->at - mapping);
	return true;
}

void memory_unmap(struct memory *memory)
{
	if (!memory->mapping)
		return;
	munmap(memory->mapping, memory->mapping_len);
	memory->mapping = NULL;
	close_fd(&memory->fd);
}

void self_open(struct self *self)
{
	self->proc_fd = procfs_open(getpid());
	self->pidfd = pidfd_from_pid(getpid());
	self->pagemap_fd = pagemap_open(self->proc_fd);
	assert_true(self->pagemap_fd >= 0);
}

void self_close(struct self *self)
{
	close_fd(&self->proc_fd);
	close_fd(&self->pidfd);
	close_fd(&self->pagemap_fd);
}

int open_uffd(bool *markers)
{
	uint64_t known, wanted;
	int fd;

	if (uffd_query_features(&known) ||
	    !(known & UFFD_FEATURE_PAGEFAULT_FLAG_WP)) {
		print_message("no userfaultfd write-protection here\n");
		skip();
	}
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		print_message("userfaultfd(2): %s\n", strerror(errno));
		skip();
	}
	wanted = known &
		 (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_REMOVE |
		  UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMAP |
		  UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
		  UFFD_FEATURE_WP_UNPOPULATED);
	assert_int_equal(uffd_init(fd, wanted), 0);
	*markers = known & UFFD_FEATURE_WP_UNPOPULATED;
	return fd;
}
