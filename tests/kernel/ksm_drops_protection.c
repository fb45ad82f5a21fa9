/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "kernel-test.h"

/*
 * Kernel samepage merging puts a new page-table entry in place of one that is
 * write-protected by userfaultfd, without the protection: the next write goes
 * unnoticed. So a dump looks, after each copy, whether the pages are protected
 * still. Exit 77 also where a kernel has learned to keep it: nothing is lost.
 */

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/userfaultfd.h>

#define N_PAGES 512
#define UFFD_WP ((uint64_t)1 << 57)

static void set(const char *name, const char *value)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		skip("%s: %s", path, strerror(errno));
	if (write(fd, value, strlen(value)) < 0)
		skip("%s: %s", path, strerror(errno));
	close(fd);
}

static uint64_t pagemap_word(int fd, const void *page)
{
	uint64_t word;

	need(pread(fd, &word, sizeof(word),
		   (off_t)((uintptr_t)page / PAGE_SIZE * sizeof(word))) ==
	     sizeof(word));
	return word;
}

int main(void)
{
	size_t len = N_PAGES * PAGE_SIZE, n_lost = 0;
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	char *memory;
	int uffd, pagemap;

	memory = mmap(NULL, len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(memory != MAP_FAILED);
	madvise(memory, len, MADV_NOHUGEPAGE);
	memset(memory, 5, len);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	need(pagemap >= 0);

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		skip("userfaultfd: %s", strerror(errno));
	reg.range.start = wp.range.start = (uintptr_t)memory;
	reg.range.len = wp.range.len = len;
	need(!ioctl(uffd, UFFDIO_REGISTER, &reg));
	need(!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	for (size_t i = 0; i < N_PAGES; i++)
		need(pagemap_word(pagemap, memory + i * PAGE_SIZE) & UFFD_WP);

	if (madvise(memory, len, MADV_MERGEABLE))
		skip("no KSM: %s", strerror(errno));
	set("pages_to_scan", "20000");
	set("run", "1");
	for (int i = 0; i < 100 && !n_lost; i++) {
		usleep(50000);
		for (size_t j = 0; j < N_PAGES; j++)
			n_lost += !(
				pagemap_word(pagemap, memory + j * PAGE_SIZE) &
				UFFD_WP);
	}
	set("run", "0");
	set("pages_to_scan", "100");
	if (!n_lost)
		skip("no page lost its protection within 5 s");
	printf("%zu of %d pages lost their protection\n", n_lost, N_PAGES);
	return 0;
}
