/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/filemap.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "sys/mapcopy.h"
#include "sys/uffd.h"

int filemap_open(void)
{
	/* What the kernel reads for us meets SIGBUS, not a fault. */
	_cleanup_close_ int uffd = uffd_open_own(UFFD_USER_MODE_ONLY);
	int r;

	if (uffd < 0)
		return uffd;
	r = uffd_init(uffd, UFFD_FEATURE_SIGBUS);
	if (!r)
		r = mapcopy_install();
	return r ? r : steal_fd(&uffd);
}

static int register_faults(const struct filemap *map)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)map->at, .len = map->len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (map->holds)
		reg.mode |= UFFDIO_REGISTER_MODE_MINOR;
	return ioctl(map->uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

int filemap_init(struct filemap *map, int uffd, int fd, uint64_t offset,
		 size_t len, uint64_t page_size)
{
	/* Private: to register a shared one, it must be open for writing. No
	 * page of it is ever ours, for it is not writable. */
	void *at = mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd,
			(off_t)offset);
	int r;

	*map = (struct filemap){};
	if (at == MAP_FAILED)
		return -errno;
	*map = (struct filemap){ at, len, uffd, page_size == PMD_SIZE };
	r = register_faults(map);
	if (r)
		filemap_deinit(map);
	return r;
}

void filemap_deinit(struct filemap *map)
{
	if (map->at)
		munmap(map->at, map->len);
	*map = (struct filemap){};
}

bool filemap_hold(const struct filemap *map, size_t at)
{
	struct uffdio_continue arg = {
		.range = { .start = (uintptr_t)map->at + at, .len = PMD_SIZE },
	};

	while (ioctl(map->uffd, UFFDIO_CONTINUE, &arg))
		if (errno != EAGAIN && errno != EINTR)
			return errno == EEXIST;
	return true;
}

int filemap_read(const struct filemap *map, size_t at, void *to, size_t len)
{
	uint8_t *from = map->at + at;
	int r;

	/* All page-table entries at once, instead of a fault for each few. */
	if (!map->holds)
		madvise(from, len, MADV_POPULATE_READ);
	r = mapcopy(to, from, len);
	/* They count as our memory while they are mapped. */
	if (!map->holds)
		madvise(from, len, MADV_DONTNEED);
	return r ? -ENOENT : 0;
}
