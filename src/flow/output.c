/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"

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
