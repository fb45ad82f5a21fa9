/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* All of `len` bytes, restarting short and interrupted calls. 0 or -errno;
 * -ENODATA when the file ends before. */
int io_read_full(int fd, void *buf, size_t len);
int io_pread_full(int fd, void *buf, size_t len, uint64_t offset);
int io_write_full(int fd, const void *buf, size_t len);
int io_pwrite_full(int fd, const void *buf, size_t len, uint64_t offset);

/* fsync(2), which a file system in user space or of a network may interrupt. 0
 * or -errno. */
int io_sync(int fd);

/*
 * A whole file of at most `max` bytes, NUL-terminated behind its last byte.
 * Sizes that lie (/proc) are fine. Returns 0 and a buffer to free, -EFBIG for
 * a larger one, or -errno. `len` may be NULL.
 */
int io_read_file(int dirfd, const char *path, size_t max, char **buf,
		 size_t *len);

/* No more than its first `max` bytes, however long it is; otherwise the same.
 */
int io_read_head(int dirfd, const char *path, size_t max, char **buf,
		 size_t *len);

/*
 * Opens a file of a directory that others have filled, for reading: a
 * descriptor; -EMEDIUMTYPE for what is no regular file, a symbolic link too; or
 * -errno. Never waits for a FIFO's other end, and opens no device.
 */
int io_open_regular(int dirfd, const char *name);

/* io_read_file() of such a file. */
int io_read_regular(int dirfd, const char *name, size_t max, char **buf,
		    size_t *len);

/* The same from an open descriptor, from its current offset. */
int io_read_all(int fd, size_t max, char **buf, size_t *len);
