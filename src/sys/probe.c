/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sys/pagemap.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/uffd.h"

static bool has_pagemap_scan(void)
{
	_cleanup_close_ int proc_fd = procfs_open(getpid());
	_cleanup_close_ int fd = proc_fd < 0 ? -1 : pagemap_open(proc_fd);

	return fd >= 0 && pagemap_can_scan(fd);
}

static int count(struct range run, unsigned flags, void *data)
{
	(void)flags;
	*(uint64_t *)data += range_len(run);
	return 0;
}

/* Two pages of ours, in two mappings, are protected by one call, or the first
 * one alone; and the page tables are asked for them. */
static int protect_pages(int uffd, int pagemap_fd, struct range pages,
			 struct probe_protection *found)
{
	struct range first = { pages.start, pages.start + PAGE_SIZE };
	uint64_t n_bytes = 0;
	int r = uffd_init(uffd, UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	if (!r)
		r = uffd_register_wp(uffd, pages);
	if (r)
		return r;
	found->spans = !uffd_protect(uffd, pages);
	r = found->spans ? 0 : uffd_protect(uffd, first);
	if (!r)
		r = pagemap_walk_protected(pagemap_fd, first, count, &n_bytes);
	found->shows = !r && n_bytes;
	return r;
}

void probe_protection(struct probe_protection *found)
{
	_cleanup_close_ int proc_fd = procfs_open(getpid());
	_cleanup_close_ int pagemap_fd =
		proc_fd < 0 ? -1 : pagemap_open(proc_fd);
	_cleanup_close_ int uffd = uffd_open_own(0);
	struct range pages;
	uint8_t *at;

	*found = (struct probe_protection){};
	at = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return;
	at[0] = at[PAGE_SIZE] = 1;
	pages.start = (uintptr_t)at;
	pages.end = pages.start + 2 * PAGE_SIZE;
	if (uffd >= 0 && pagemap_fd >= 0 &&
	    !mprotect(at + PAGE_SIZE, PAGE_SIZE, PROT_READ))
		protect_pages(uffd, pagemap_fd, pages, found);
	munmap(at, 2 * PAGE_SIZE);
}

static bool has_pidfd_getfd(void)
{
	_cleanup_close_ int pidfd = pidfd_from_pid(getpid());
	_cleanup_close_ int fd = pidfd < 0 ? -1 : pidfd_take_fd(pidfd, 0);

	return fd >= 0 || (pidfd >= 0 && fd == -EBADF);
}

/* Not by access(2), which asks for who started us, without our privileges. */
static bool has_uffd_device(void)
{
	_cleanup_close_ int fd = uffd_open_device();

	return fd >= 0;
}

static bool has_vm_readv(void)
{
	char from = 'x', to = 0;
	struct iovec local = { &to, 1 }, remote = { &from, 1 };

	return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1;
}

static bool has_memfd(void)
{
	_cleanup_close_ int fd = memfd_create("probe", MFD_CLOEXEC);

	return fd >= 0;
}

static void add(struct probe_result *results, size_t *n, const char *name,
		bool has, enum probe_state otherwise, const char *use)
{
	results[(*n)++] = (struct probe_result){
		.name = name,
		.state = has ? PROBE_YES : otherwise,
		.use = use,
	};
}

size_t probe_kernel(struct probe_result *results)
{
	struct probe_protection protection;
	uint64_t features = 0;
	int r = uffd_query_features(&features);
	size_t n = 0;

	probe_protection(&protection);

	add(results, &n, "userfaultfd", !r, PROBE_REQUIRED,
	    r == -EPERM
		    ? "not allowed: CAP_SYS_PTRACE, or access to /dev/userfaultfd"
		    : "Linux 5.11 with CONFIG_USERFAULTFD");
	add(results, &n, "userfaultfd write-protect",
	    features & UFFD_FEATURE_PAGEFAULT_FLAG_WP, PROBE_REQUIRED,
	    "protects private memory (Linux 5.7)");
	add(results, &n, "userfaultfd write-protect, pagemap", protection.shows,
	    PROBE_REQUIRED,
	    "tells whether a page was protected all the time (Linux 5.13)");
	add(results, &n, "userfaultfd write-protect, shared memory",
	    features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM, PROBE_NO,
	    "memfd, tmpfs and hugetlbfs can be dumped (Linux 5.19)");
	add(results, &n, "userfaultfd write-protect, unpopulated",
	    features & UFFD_FEATURE_WP_UNPOPULATED, PROBE_NO,
	    "without it holes are filled before arming (Linux 6.4)");
	add(results, &n, "userfaultfd write-protect, many mappings",
	    protection.spans, PROBE_NO,
	    "without it each is protected by itself (Linux 6.4)");
	add(results, &n, "userfaultfd events",
	    features & UFFD_FEATURE_EVENT_REMOVE &&
		    features & UFFD_FEATURE_EVENT_UNMAP,
	    PROBE_REQUIRED, "memory that goes away is noticed (Linux 4.11)");
	add(results, &n, "/dev/userfaultfd", has_uffd_device(), PROBE_NO,
	    "targets that may not call userfaultfd(2) themselves (Linux 6.1)");
	add(results, &n, "PAGEMAP_SCAN", has_pagemap_scan(), PROBE_NO,
	    "without it page tables are read word by word (Linux 6.7)");
	add(results, &n, "pidfd_getfd", has_pidfd_getfd(), PROBE_REQUIRED,
	    "takes descriptors over from the target (Linux 5.6)");
	add(results, &n, "process_vm_readv", has_vm_readv(), PROBE_REQUIRED,
	    "reads private memory (CONFIG_CROSS_MEMORY_ATTACH)");
	add(results, &n, "memfd_create", has_memfd(), PROBE_REQUIRED,
	    "takes the device state of a VM");
	return n;
}
