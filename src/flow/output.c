/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/util.h"
#include "sys/reflink.h"

/*
 * A longer write into the page cache makes Linux look for larger folios: in
 * calls of 8 MiB it took up to three times the processor's time (ext4 on 6.18).
 */
#define WRITE_MAX (256 * KIB)

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
	if (output->fd >= 0)
		return 0;
	if (errno == EEXIST)
		return log_errno(
			-EEXIST,
			"%s: exists already; remove it or choose another file",
			path);
	return log_errno(-errno, "%s: cannot create it: %m", path);
}

int output_finish(struct output *output)
{
	if (output->remove && fsync(output->fd))
		return log_errno(-errno, "%s: writing: %m", output->path);
	output->remove = false;
	return 0;
}

void output_discard(struct output *output)
{
	close_fd(&output->fd);
	if (output->remove)
		unlink(output->path);
}

static int logged(const struct output *output, int r)
{
	return r ? log_errno(r, "%s: writing: %m", output->path) : 0;
}

int output_append(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct output *output = opaque;

	(void)at;
	return logged(output, io_write_full(output->fd, buf, len));
}

int output_write_at(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct output *output = opaque;

	return logged(output, io_pwrite_full(output->fd, buf, len, at));
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
	    !reflink_range(pages->fd, pages->first * PAGE_SIZE, output->fd, at,
			   pages->n * PAGE_SIZE))
		return 0;
	/* Two file systems, one that cannot, or blocks larger than a page. What
	 * else is wrong shows when writing. */
	output->no_sharing = true;
	return write_pages(output, at, pages);
}
