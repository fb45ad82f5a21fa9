/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/fdpass.h"

/* More than the kernel lets through, and than there is room for. */
#define FDS_MAX 64

/* So many descriptors, in so many control messages. */
static void send_message(int sock, const uint8_t *data, size_t len,
			 size_t n_fds, size_t per_message)
{
	static uint8_t control[FDS_MAX * CMSG_SPACE(sizeof(int))];
	struct iovec iov = { (void *)data, len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	size_t used = 0;

	memset(control, 0, sizeof(control));
	while (n_fds) {
		size_t n = min_u64(n_fds, per_message);

		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
		for (size_t i = 0; i < n; i++)
			((int *)CMSG_DATA(cmsg))[i] = sock;
		used += CMSG_SPACE(n * sizeof(int));
		n_fds -= n;
		cmsg = (struct cmsghdr *)(control + used);
	}
	msg.msg_controllen = used;
	if (!used)
		msg.msg_control = NULL;
	sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int count_fds(void)
{
	int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);

	close(fd);
	return fd;
}

/*
 * The socket over which a descriptor comes from a target: messages of any
 * length, with any number of descriptors. None of them may stay open.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t n_fds, room, per_message, got_len;
	int fds[FDPASS_MAX], socks[2], first = count_fds();
	uint8_t buf[64];

	if (len < 4)
		return 0;
	n_fds = data[0] % (FDS_MAX + 1);
	per_message = data[1] % FDS_MAX + 1;
	room = data[2] % (FDPASS_MAX + 1);
	got_len = data[3] % sizeof(buf);
	fuzz_require(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, socks));
	send_message(socks[1], data + 4, len - 4, n_fds, per_message);
	fcntl(socks[0], F_SETFL, O_NONBLOCK);
	if (!fdpass_recv(socks[0], buf, &got_len, fds, &room)) {
		fuzz_require(got_len < sizeof(buf) && room <= FDPASS_MAX);
		while (room)
			close(fds[--room]);
	}
	close(socks[0]);
	close(socks[1]);
	fuzz_require(count_fds() == first);
	return 0;
}
