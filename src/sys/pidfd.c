/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/pidfd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

int pidfd_from_pid(pid_t pid)
{
	long fd = syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : (int)fd;
}

int pidfd_from_tid(pid_t tid)
{
	/* PIDFD_THREAD, linux/pidfd.h */
	long fd = syscall(SYS_pidfd_open, tid, O_EXCL);

	return fd < 0 ? -errno : (int)fd;
}

int pidfd_take_fd(int pidfd, int remote_fd)
{
	long fd = syscall(SYS_pidfd_getfd, pidfd, remote_fd, 0);

	return fd < 0 ? -errno : (int)fd;
}

bool pidfd_is_alive(int pidfd)
{
	return pidfd_wait_exit(pidfd, 0) == -ETIMEDOUT;
}

int pidfd_wait_exit(int pidfd, int timeout_ms)
{
	struct pollfd poll_fd = { .fd = pidfd, .events = POLLIN };
	uint64_t deadline = now_ns() + (uint64_t)timeout_ms * 1000000;

	for (;;) {
		int r = poll(&poll_fd, 1, timeout_ms);

		if (r > 0)
			return 0;
		if (!r)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
		if (timeout_ms > 0) {
			uint64_t now = now_ns();

			timeout_ms =
				now >= deadline
					? 0
					: (int)((deadline - now) / 1000000);
		}
	}
}

int pidfd_kill(int pidfd, int sig)
{
	if (syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0)
		return -errno;
	return 0;
}
