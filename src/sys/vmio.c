/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/vmio.h"

#include <errno.h>
#include <sys/uio.h>

#include "base/io.h"

/* As many as the kernel holds without an allocation would be 8; a page of
 * them costs little stack and saves system calls. */
#define BATCH 64

/* One call moves at most 2 GiB less a page (MAX_RW_COUNT). */
#define CALL_MAX GIB

int vm_read(pid_t pid, uint64_t remote_addr, void *buf, size_t len)
{
	struct range range = { remote_addr, remote_addr + len };
	size_t n_bytes;

	if (range.end < range.start)
		return -EFAULT;
	return vm_read_ranges(pid, &range, 1, buf, &n_bytes);
}

int vm_write(pid_t pid, uint64_t remote_addr, const void *buf, size_t len)
{
	const char *from = buf;

	while (len) {
		struct iovec local = { (void *)from, min_u64(len, CALL_MAX) };
		struct iovec remote = { (void *)(uintptr_t)remote_addr,
					local.iov_len };
		ssize_t r = process_vm_writev(pid, &local, 1, &remote, 1, 0);

		if (r < 0)
			return -errno;
		if (!r)
			return -EFAULT;
		from += r;
		remote_addr += (uint64_t)r;
		len -= (size_t)r;
	}
	return 0;
}

/* Fills `remote` with what comes `skip` bytes into the ranges; bytes in all. */
static size_t fill_batch(struct iovec *remote, size_t *n_remote,
			 const struct range *ranges, size_t n, uint64_t skip)
{
	size_t total = 0;

	*n_remote = 0;
	for (size_t i = 0; i < n && *n_remote < BATCH; i++, skip = 0) {
		uint64_t start = ranges[i].start + skip;
		size_t len = min_u64(ranges[i].end - start, CALL_MAX - total);

		remote[(*n_remote)++] =
			(struct iovec){ (void *)(uintptr_t)start, len };
		total += len;
		if (total == CALL_MAX)
			break;
	}
	return total;
}

int vm_read_ranges(pid_t pid, const struct range *ranges, size_t n, void *buf,
		   size_t *n_bytes)
{
	uint64_t skip = 0; /* of the first range left */

	*n_bytes = 0;
	while (n) {
		struct iovec remote[BATCH], local;
		size_t n_remote;
		ssize_t r;

		if (range_len(*ranges) == skip) {
			ranges++;
			n--;
			skip = 0;
			continue;
		}
		local.iov_base = (char *)buf + *n_bytes;
		local.iov_len = fill_batch(remote, &n_remote, ranges, n, skip);
		r = process_vm_readv(pid, &local, 1, remote, n_remote, 0);
		if (r < 0)
			return -errno;
		if (!r)
			return -EFAULT;
		*n_bytes += (size_t)r;

		/* A short transfer ends at the page that failed: trying again
		 * from there gives its errno. */
		skip += (size_t)r;
		while (n && skip >= range_len(*ranges)) {
			skip -= range_len(*ranges);
			ranges++;
			n--;
		}
	}
	return 0;
}

int vm_read_ranges_forced(int mem_fd, const struct range *ranges, size_t n,
			  void *buf)
{
	uint8_t *to = buf;

	for (size_t i = 0; i < n; i++) {
		size_t len = range_len(ranges[i]);
		int r = io_pread_full(mem_fd, to, len, ranges[i].start);

		if (r)
			return r == -EIO || r == -ENODATA ? -EFAULT : r;
		to += len;
	}
	return 0;
}
