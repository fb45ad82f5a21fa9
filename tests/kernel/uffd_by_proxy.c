/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A userfaultfd belongs to the memory of the process that made it, whoever
 * holds it: one that an unprivileged child makes through an inherited
 * /dev/userfaultfd, taken by pidfd_getfd(2) and closed in the child, reports
 * the child's faults, those in kernel mode as well.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "kernel-test.h"
#include "sys/pidfd.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

static void child_main(int dev, char *area, int tell, int hear)
{
	int fds[2], fd;
	char c;

	need(!setresgid(65534, 65534, 65534));
	need(!setresuid(65534, 65534, 65534));
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	need(write(tell, &fd, sizeof(fd)) == sizeof(fd));
	need(read(hear, &c, 1) == 1);
	close(fd);
	need(write(tell, &fd, sizeof(fd)) == sizeof(fd));
	need(read(hear, &c, 1) == 1);
	/* A fault in kernel mode. */
	need(!pipe(fds) && write(fds[1], "x", 1) == 1);
	need(read(fds[0], area, 1) == 1);
	_exit(*area == 'x' ? 0 : 1);
}

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	char *area = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {
		.range = { (uintptr_t)area, PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.range = reg.range,
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int to_child[2], to_us[2], fd, uffd, pidfd;
	struct pollfd poll_fd;
	struct uffd_msg msg;
	pid_t pid;

	if (dev < 0)
		skip("/dev/userfaultfd: %s", strerror(errno));
	need(!pipe(to_child) && !pipe(to_us));
	memset(area, 'a', PAGE_SIZE);
	pid = fork_child();
	if (!pid)
		child_main(dev, area, to_us[1], to_child[0]);

	pidfd = pidfd_from_pid(pid);
	need(read(to_us[0], &fd, sizeof(fd)) == sizeof(fd));
	uffd = pidfd_take_fd(pidfd, fd);
	if (uffd < 0)
		skip("pidfd_getfd: %s", strerror(-uffd));
	need(write(to_child[1], "", 1) == 1);
	need(read(to_us[0], &fd, sizeof(fd)) == sizeof(fd));
	need(pidfd_take_fd(pidfd, fd) == -EBADF);

	if (ioctl(uffd, UFFDIO_API, &api))
		skip("UFFD_FEATURE_PAGEFAULT_FLAG_WP: %s", strerror(errno));
	need(!ioctl(uffd, UFFDIO_REGISTER, &reg));
	need(!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	need(write(to_child[1], "", 1) == 1);

	poll_fd = (struct pollfd){ .fd = uffd, .events = POLLIN };
	need(poll(&poll_fd, 1, 10000) == 1);
	need(read(uffd, &msg, sizeof(msg)) == sizeof(msg));
	need(msg.event == UFFD_EVENT_PAGEFAULT);
	need(msg.arg.pagefault.address == (uintptr_t)area);
	/* Its end is the end of the protection, and it wakes the child. */
	close(uffd);
	need(reap(pid) == 0);
	return 0;
}
