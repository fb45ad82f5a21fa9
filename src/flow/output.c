/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/util.h"
#include "sys/reflink.h"

/*
 * A longer write into the page cache makes Linux look for larger folios: in
 * calls of 8 MiB it took up to three times the processor's time (ext4 on 6.18).
 */
#define WRITE_MAX (256 * KIB)

/* How long an interrupt may go unnoticed while the reader takes nothing. */
#define LOOK_EVERY_MS 100

static bool has_reader(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && (S_ISFIFO(st.st_mode) ||
				   S_ISSOCK(st.st_mode) || S_ISCHR(st.st_mode));
}

int output_open(struct output *output, const char *path)
{
	if (!strcmp(path, "-")) {
		output->path = "stdout";
		output->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	} else {
		output->path = path;
		output->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
				  0600);
		output->remove = output->fd >= 0;
	}
	if (output->fd >= 0) {
		output->may_stall = has_reader(output->fd);
		return 0;
	}
	if (errno == EEXIST)
		return log_errno(
			-EEXIST,
			"%s: exists already; remove it or choose another file",
			path);
	return log_errno(-errno, "%s: cannot create it: %m", path);
}

int output_finish(struct output *output)
{
	int r = output->remove ? io_sync(output->fd) : 0;

	INJECT_INTO(r, "stream-sync-done");
	if (r)
		return log_errno(r, "%s: writing: %m", output->path);
	output->remove = false;
	return 0;
}

void output_discard(struct output *output)
{
	close_fd(&output->fd);
	if (output->remove)
		unlink(output->path);
}

static int write_failed(const struct output *output, int r)
{
	if (r == -EPIPE)
		return log_errno(
			r, "%s: its reader ended before it had everything: %m",
			output->path);
	return log_errno(r, "%s: writing: %m", output->path);
}

/*
 * Writes what there is room for, without waiting: how many bytes, or -errno.
 * O_NONBLOCK would change the descriptor for everybody who has it, the user's
 * shell too. RWF_NOWAIT is for one call, but pipes have it from Linux 6.4 on,
 * and those with a name not at all. Else a pipe that polls as writable takes
 * PIPE_BUF bytes at least, at a quarter of the rate: 1 GiB a second.
 */
static ssize_t write_some(struct output *output, const void *buf, size_t len)
{
	struct pollfd room = { .fd = output->fd, .events = POLLOUT };
	struct iovec iov = { (void *)buf, len };
	ssize_t n;

	if (output->may_stall && !output->in_pieces) {
		n = pwritev2(output->fd, &iov, 1, -1, RWF_NOWAIT);
		if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS))
			return n < 0 ? -errno : n;
		output->in_pieces = true;
	}
	if (output->in_pieces) {
		if (poll(&room, 1, 0) <= 0)
			return -EAGAIN;
		len = min_u64(len, PIPE_BUF);
	}
	n = write(output->fd, buf, len);
	return n < 0 ? -errno : n;
}

static int wait_for_room(struct output *output)
{
	struct pollfd room = { .fd = output->fd, .events = POLLOUT };

	for (;;) {
		if (interrupt_pending())
			return -EINTR;
		if (atomic_load(&output->cancelled))
			return -ECANCELED;
		if (poll(&room, 1, LOOK_EVERY_MS) > 0)
			return 0;
	}
}

int output_append(void *opaque, uint64_t offset, const void *buf, size_t len)
{
	struct output *output = opaque;
	const char *at = buf;

	(void)offset;
	while (len) {
		ssize_t n = write_some(output, at, len);
		int r;

		if (n == -EAGAIN || n == -EINTR) {
			r = wait_for_room(output);
			if (r)
				return r;
			continue;
		}
		if (n < 0)
			return write_failed(output, (int)n);
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

void output_cancel(struct output *output)
{
	atomic_store(&output->cancelled, true);
}

int output_write_at(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct output *output = opaque;
	int r = io_pwrite_full(output->fd, buf, len, at);

	return r ? write_failed(output, r) : 0;
}

static int write_pages(struct output *output, uint64_t at,
		       const struct imagewalk_pages *pages)
{
	const uint8_t *data = pages->data;
	uint64_t len = pages->n * PAGE_SIZE;
	int r = 0;

	for (uint64_t done = 0; !r && done < len; done += WRITE_MAX)
		r = output_write_at(output, at + done, data + done,
				    min_u64(len - done, WRITE_MAX));
	return r;
}

/*
 * The pages have been read and checked. To share the blocks that they were read
 * from costs neither I/O nor space. Without that, the checked copy is at hand,
 * and written as fast as copy_file_range() would read the unchecked one again.
 */
int output_put_pages(struct output *output, uint64_t at,
		     const struct imagewalk_pages *pages)
{
	if (!output->no_sharing &&
	    !reflink_range(pages->fd, pages->fd_offset, output->fd, at,
			   pages->n * PAGE_SIZE))
		return 0;
	/* Two file systems, one that cannot, or blocks larger than a page. What
	 * else is wrong shows when writing. */
	output->no_sharing = true;
	return write_pages(output, at, pages);
}
