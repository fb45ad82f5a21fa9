/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A unix datagram socket may be its own peer, and hands on descriptors to
 * itself; what it still holds at its end is closed.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "kernel-test.h"
#include "sys/fdpass.h"

static int connect_to_itself(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(addr);
	int sock = socket(AF_UNIX, SOCK_DGRAM, 0);

	need(!bind(sock, (void *)&addr, sizeof(addr.sun_family)));
	need(!getsockname(sock, (void *)&addr, &len));
	need(!connect(sock, (void *)&addr, len));
	return sock;
}

int main(void)
{
	int sock = connect_to_itself(), pipe_fds[2], fd = -1;
	struct pollfd poll_fd;
	size_t len = 1, n_fds = 1;
	char c;

	need(!pipe(pipe_fds));
	need_ok(fdpass_send(sock, "x", 1, &pipe_fds[1], 1));
	need_ok(fdpass_recv(sock, &c, &len, &fd, &n_fds));
	need(c == 'x' && len == 1 && n_fds == 1);
	close(pipe_fds[1]);
	need(write(fd, "y", 1) == 1);
	need(read(pipe_fds[0], &c, 1) == 1 && c == 'y');

	/* In flight, then gone with the socket: the pipe has no writer. */
	need_ok(fdpass_send(sock, "x", 1, &fd, 1));
	close(fd);
	poll_fd = (struct pollfd){ .fd = pipe_fds[0] };
	need(poll(&poll_fd, 1, 0) == 0);
	close(sock);
	need(poll(&poll_fd, 1, 10000) == 1 && poll_fd.revents & POLLHUP);
	return 0;
}
