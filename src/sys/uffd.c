/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

int uffd_init(int uffd, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	return ioctl(uffd, UFFDIO_API, &api) ? -errno : 0;
}

int uffd_open_device(void)
{
	int fd = open("/dev/userfaultfd", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int uffd_open_own(int flags)
{
	_cleanup_close_ int dev = -1;
	int fd;

	flags |= O_CLOEXEC | O_NONBLOCK;
	fd = (int)syscall(SYS_userfaultfd, flags);
	if (fd < 0 && errno == EPERM) {
		dev = uffd_open_device();
		if (dev < 0)
			return -EPERM;
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
	}
	return fd < 0 ? -errno : fd;
}

int uffd_query_features(uint64_t *features)
{
	_cleanup_close_ int fd = uffd_open_own(0);
	struct uffdio_api api = { .api = UFFD_API };

	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api))
		return -errno;
	*features = api.features;
	return 0;
}

int uffd_may_follow_forks(void)
{
	_cleanup_close_ int fd = uffd_open_own(0);

	return fd < 0 ? fd : uffd_init(fd, UFFD_FEATURE_EVENT_FORK);
}

int uffd_register_wp(int uffd, struct range range)
{
	struct uffdio_register reg = {
		.range = { .start = range.start, .len = range_len(range) },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	/* A range that registers but can't be protected is of no use. */
	if (!(reg.ioctls & (uint64_t)1 << _UFFDIO_WRITEPROTECT)) {
		uffd_unregister(uffd, range);
		return -EINVAL;
	}
	return 0;
}

int uffd_unregister(int uffd, struct range range)
{
	struct uffdio_range r = { .start = range.start,
				  .len = range_len(range) };

	return ioctl(uffd, UFFDIO_UNREGISTER, &r) ? -errno : 0;
}

static int writeprotect(int uffd, struct range range, uint64_t mode)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = range.start, .len = range_len(range) },
		.mode = mode,
	};

	while (ioctl(uffd, UFFDIO_WRITEPROTECT, &wp))
		if (errno != EINTR)
			return -errno;
	return 0;
}

void uffd_wait_for_change(void)
{
	struct timespec moment = { .tv_nsec = 20000 };

	nanosleep(&moment, NULL);
}

static int writeprotect_waiting(int uffd, struct range range, uint64_t mode)
{
	int r;

	while ((r = writeprotect(uffd, range, mode)) == -EAGAIN)
		uffd_wait_for_change();
	return r;
}

int uffd_protect(int uffd, struct range range)
{
	return writeprotect_waiting(uffd, range, UFFDIO_WRITEPROTECT_MODE_WP);
}

int uffd_unprotect(int uffd, struct range range)
{
	return writeprotect_waiting(uffd, range, 0);
}

int uffd_try_protect(int uffd, struct range range)
{
	return writeprotect(uffd, range, UFFDIO_WRITEPROTECT_MODE_WP);
}

int uffd_try_unprotect(int uffd, struct range range)
{
	return writeprotect(uffd, range, 0);
}

int uffd_for_registered(int uffd, struct range range, uint64_t page_size,
			uffd_range_fn fn)
{
	struct range left = range, right = range;
	int r = fn(uffd, range), rest;

	if (r != -ENOENT || range_len(range) <= page_size)
		return r;
	left.end = range.start + ROUND_UP(range_len(range) / 2, page_size);
	right.start = left.end;
	r = uffd_for_registered(uffd, left, page_size, fn);
	if (r && r != -ENOENT)
		return r;
	rest = uffd_for_registered(uffd, right, page_size, fn);
	return rest ? rest : r;
}

int uffd_wake(int uffd, struct range range)
{
	struct uffdio_range r = { .start = range.start,
				  .len = range_len(range) };

	return ioctl(uffd, UFFDIO_WAKE, &r) ? -errno : 0;
}

bool uffd_is_changing(int uffd)
{
	static const struct range none;

	return writeprotect(uffd, none, 0) == -EAGAIN;
}

int uffd_read(int uffd, struct uffd_msg *msgs, size_t max)
{
	ssize_t n = read(uffd, msgs, max * sizeof(*msgs));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return -errno;
	return (int)((size_t)n / sizeof(*msgs));
}

int uffd_open_info(int uffd)
{
	char path[48];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int uffd_count_pending(int info_fd)
{
	static const char field[] = "pending:";
	char text[512];
	const char *at;
	ssize_t n = pread(info_fd, text, sizeof(text) - 1, 0);
	long count;

	if (n < 0)
		return -errno;
	text[n] = 0;
	at = strstr(text, field);
	if (!at)
		return -EBADMSG;
	count = strtol(at + sizeof(field) - 1, NULL, 10);
	return count < 0 || count > INT_MAX ? -EBADMSG : (int)count;
}

bool uffd_is_readable(int uffd)
{
	struct pollfd fd = { .fd = uffd, .events = POLLIN };

	return poll(&fd, 1, 0) > 0 && fd.revents & POLLIN;
}
