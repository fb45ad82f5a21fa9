/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "parasite/parasite.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "parasite/remote.h"
#include "sys/fdpass.h"
#include "sys/pidfd.h"

#ifndef USERFAULTFD_IOC_NEW /* since 6.1 */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define UFFD_FLAGS (O_CLOEXEC | O_NONBLOCK)

struct parasite {
	struct remote remote;
	int pidfd;	  /* descriptors are picked up by this one */
	int thread_pidfd; /* of a thread that stands in, or -1 */
};

static int fail_to_pick_up(const struct remote *r, int err)
{
	if (err != -EINVAL)
		return log_errno(err, "pid %d: pidfd_open of thread %d: %m",
				 r->pid, r->tid);
	log_error("pid %d: its main thread has exited; a kernel with "
		  "PIDFD_THREAD (6.9) is needed",
		  r->pid);
	return RESULT_UNSUPPORTED;
}

/* A main thread that has exited holds no descriptors any more. */
static int open_pidfd(struct parasite *p, int pidfd)
{
	p->pidfd = pidfd;
	if (p->remote.tid == p->remote.pid)
		return 0;
	p->thread_pidfd = pidfd_from_tid(p->remote.tid);
	if (p->thread_pidfd < 0)
		return fail_to_pick_up(&p->remote, p->thread_pidfd);
	p->pidfd = p->thread_pidfd;
	return 0;
}

int parasite_infect(struct parasite **out, pid_t pid, int proc_fd, int pidfd)
{
	_cleanup_free_ struct parasite *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return log_errno(-ENOMEM, "parasite: %m");
	p->thread_pidfd = -1;
	err = remote_hold(&p->remote, pid, proc_fd, pidfd);
	if (err)
		return err;
	err = open_pidfd(p, pidfd);
	if (err) {
		int left = remote_release(&p->remote);

		return left == -ETIMEDOUT ? left : err;
	}
	*out = steal_ptr(p);
	return 0;
}

int parasite_cure(struct parasite *p)
{
	int err;

	if (!p)
		return 0;
	err = remote_release(&p->remote);
	close_fd(&p->thread_pidfd);
	free(p);
	return err;
}

/* Other threads of the target may have put anything in its place meanwhile. */
static int check_is_uffd(int fd)
{
	char path[32], name[32] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, name, sizeof(name) - 1) < 0)
		return -errno;
	return strcmp(name, "anon_inode:[userfaultfd]") ? -EBADF : 0;
}

/* Picks up what the target has made, and has it close its own. */
static int take_uffd(struct parasite *p, int remote_fd, int *uffd)
{
	_cleanup_close_ int fd = pidfd_take_fd(p->pidfd, remote_fd);
	int err;

	if (fd < 0)
		return fd;
	err = INJECT("infect-take-uffd") ?: check_is_uffd(fd);
	if (!err)
		err = remote_close_fd(&p->remote);
	if (!err)
		*uffd = steal_fd(&fd);
	return err;
}

static int make_by_syscall(struct parasite *p, int *uffd)
{
	int remote_fd, err;

	err = remote_open_fd(&p->remote, SYS_userfaultfd,
			     (uint64_t[6]){ UFFD_FLAGS }, &remote_fd);
	return err ? err : take_uffd(p, remote_fd, uffd);
}

/*
 * A datagram socket that is its own peer: what is sent to it arrives there. So
 * one socket hands a descriptor over, known by number as soon as it exists.
 */
static int connect_to_itself(int sock)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(addr);

	/* Without a path the kernel chooses an abstract name (unix(7)). */
	if (bind(sock, (struct sockaddr *)&addr, sizeof(addr.sun_family)) ||
	    getsockname(sock, (struct sockaddr *)&addr, &len) ||
	    connect(sock, (struct sockaddr *)&addr, len))
		return -errno;
	return 0;
}

static int hand_over(struct parasite *p, int fd, int *remote_fd)
{
	_cleanup_close_ int sock = -1;
	int remote_sock, err;

	err = remote_open_fd(
		&p->remote, SYS_socket,
		(uint64_t[6]){ AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC },
		&remote_sock);
	if (err)
		return err;
	sock = pidfd_take_fd(p->pidfd, remote_sock);
	if (sock < 0)
		return sock;
	err = INJECT("handover-connect") ?: connect_to_itself(sock);
	INJECT_INTO(err, "handover-send");
	if (!err)
		err = fdpass_send(sock, "", 1, &fd, 1);
	INJECT_INTO(err, "handover-receive");
	if (!err)
		err = remote_receive_fd(&p->remote, remote_sock, remote_fd);
	return err;
}

static int make_by_device(struct parasite *p, int dev_fd, int *uffd)
{
	int remote_dev, remote_fd, err;

	err = hand_over(p, dev_fd, &remote_dev);
	INJECT_INTO(err, "handover-ioctl");
	if (!err)
		err = remote_open_fd(&p->remote, SYS_ioctl,
				     (uint64_t[6]){ (uint64_t)remote_dev,
						    USERFAULTFD_IOC_NEW,
						    UFFD_FLAGS },
				     &remote_fd);
	if (!err)
		err = take_uffd(p, remote_fd, uffd);
	return err;
}

static int drop_fds(struct parasite *p)
{
	int err = 0;

	while (!err && p->remote.wayback.n_fds)
		err = remote_close_fd(&p->remote);
	return err;
}

int parasite_make_uffd(struct parasite *p, int dev_fd, int *uffd)
{
	_cleanup_close_ int fd = -1;
	pid_t pid = p->remote.pid;
	int err;

	err = make_by_syscall(p, &fd);
	if (err == -EPERM || err == -ENOSYS || err == -EACCES) {
		if (dev_fd < 0) {
			log_error("pid %d: may not call userfaultfd(2) "
				  "(vm.unprivileged_userfaultfd), and there is "
				  "no /dev/userfaultfd",
				  pid);
			return RESULT_UNSUPPORTED;
		}
		err = make_by_device(p, dev_fd, &fd);
	}
	if (!err)
		err = drop_fds(p);
	INJECT_INTO(err, "infect-done");
	if (err)
		return log_errno(err, "pid %d: making a userfaultfd: %m", pid);
	*uffd = steal_fd(&fd);
	return 0;
}
