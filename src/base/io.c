/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

int io_read_full(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = read(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int io_pread_full(int fd, void *buf, size_t len, uint64_t offset)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int io_write_full(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int io_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

int io_sync(int fd)
{
	while (fsync(fd))
		if (errno != EINTR)
			return -errno;
	return 0;
}

int io_read_all(int fd, size_t max, char **buf, size_t *len)
{
	_cleanup_free_ char *data = NULL;
	size_t used = 0, size = 0;

	for (;;) {
		ssize_t n;

		if (size - used < 2) {
			size_t bigger = size ? size * 2 : 4096;
			char *p = realloc(data, bigger);

			if (!p)
				return -ENOMEM;
			data = p;
			size = bigger;
		}

		n = read(fd, data + used, size - used - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		used += (size_t)n;
		if (used > max)
			return -EFBIG;
	}

	data[used] = '\0';
	*buf = steal_ptr(data);
	if (len)
		*len = used;
	return 0;
}

int io_open_regular(int dirfd, const char *name)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	/* First a look: opening a device does something. What takes its place
	 * meanwhile is found out below. */
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EMEDIUMTYPE;
	fd = openat(dirfd, name,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ELOOP ? -EMEDIUMTYPE : -errno;
	if (fstat(fd, &st))
		return -errno;
	return S_ISREG(st.st_mode) ? steal_fd(&fd) : -EMEDIUMTYPE;
}

int io_read_regular(int dirfd, const char *name, size_t max, char **buf,
		    size_t *len)
{
	_cleanup_close_ int fd = io_open_regular(dirfd, name);

	return fd < 0 ? fd : io_read_all(fd, max, buf, len);
}

int io_read_file(int dirfd, const char *path, size_t max, char **buf,
		 size_t *len)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return io_read_all(fd, max, buf, len);
}

int io_read_head(int dirfd, const char *path, size_t max, char **buf,
		 size_t *len)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *data = malloc(max + 1);
	size_t used = 0;
	ssize_t n = 1;

	if (fd < 0)
		return -errno;
	if (!data)
		return -ENOMEM;
	while (n && used < max) {
		n = read(fd, data + used, max - used);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			used += (size_t)n;
	}
	data[used] = '\0';
	*buf = steal_ptr(data);
	*len = used;
	return 0;
}
