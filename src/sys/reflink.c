/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/reflink.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

int reflink_range(int from, uint64_t from_at, int to, uint64_t to_at,
		  uint64_t len)
{
	struct file_clone_range range = {
		.src_fd = from,
		.src_offset = from_at,
		.src_length = len,
		.dest_offset = to_at,
	};

	return ioctl(to, FICLONERANGE, &range) ? -errno : 0;
}
