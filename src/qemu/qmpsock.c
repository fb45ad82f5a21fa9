/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/qmpsock.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

#define RECEIVE_MIN 65536

/*
 * buf[start, scanned) is the message that is being received; buf[scanned, end)
 * came with it and was not looked at yet.
 */
struct qmp_sock {
	int fd;
	char *buf;
	size_t start, scanned, end, capacity;
	/* Where the scan stands in the message. */
	unsigned depth;
	bool in_string, escaped;
};

/* Waits for `events`; the descriptor itself stays as it is, since a guardian
 * process may share it. */
static int wait_ready(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	uint64_t now;
	int r;

	for (;;) {
		now = now_ns();
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		r = poll(&pfd, 1,
			 (int)min_u64((deadline_ns - now) / 1000000 + 1,
				      3600 * 1000));
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

static int sock_send(void *transport, const char *buf, size_t len, int fd,
		     uint64_t deadline_ns)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct qmp_sock *sock = transport;
	struct cmsghdr *cmsg;
	ssize_t n;
	int r;

	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control.space);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	}

	while (iov.iov_len) {
		n = sendmsg(sock->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) {
			r = wait_ready(sock->fd, POLLOUT, deadline_ns);
			if (r)
				return r;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EPIPE ? -ECONNRESET : -errno;
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
		/* The descriptor went along with the first bytes. */
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
	}
	return 0;
}

/* One byte of a message. Only frames; whether it is JSON shows the parser. */
static void scan_byte(struct qmp_sock *sock, char c)
{
	if (sock->in_string) {
		if (sock->escaped)
			sock->escaped = false;
		else if (c == '\\')
			sock->escaped = true;
		else if (c == '"')
			sock->in_string = false;
		return;
	}
	switch (c) {
	case '"':
		sock->in_string = true;
		break;
	case '{':
	case '[':
		sock->depth++;
		break;
	case '}':
	case ']':
		sock->depth--;
		break;
	default:
		break;
	}
}

/* Drops what stands between messages. -EPROTO if it is more than space. */
static int skip_space(struct qmp_sock *sock)
{
	while (sock->start < sock->end &&
	       strchr(" \t\r\n", sock->buf[sock->start]) &&
	       sock->buf[sock->start])
		sock->start++;
	sock->scanned = sock->start;
	if (sock->start < sock->end && sock->buf[sock->start] != '{')
		return -EPROTO;
	return 0;
}

/* 1: buf[start, scanned) is a whole message. 0: more is needed. */
static int scan(struct qmp_sock *sock)
{
	int r;

	if (sock->scanned == sock->start) {
		r = skip_space(sock);
		if (r)
			return r;
	}
	while (sock->scanned < sock->end) {
		scan_byte(sock, sock->buf[sock->scanned++]);
		if (!sock->depth)
			return 1;
	}
	return sock->end - sock->start > QMP_MAX_MESSAGE ? -EMSGSIZE : 0;
}

static int make_room(struct qmp_sock *sock)
{
	size_t capacity;
	char *buf;

	if (sock->start) {
		memmove(sock->buf, sock->buf + sock->start,
			sock->end - sock->start);
		sock->end -= sock->start;
		sock->scanned -= sock->start;
		sock->start = 0;
	}
	if (sock->capacity - sock->end >= RECEIVE_MIN)
		return 0;

	capacity = max_u64(2 * sock->capacity, 2 * RECEIVE_MIN);
	buf = realloc(sock->buf, capacity);
	if (!buf)
		return -ENOMEM;
	sock->buf = buf;
	sock->capacity = capacity;
	return 0;
}

static int receive_some(struct qmp_sock *sock, uint64_t deadline_ns)
{
	ssize_t n;
	int r;

	r = make_room(sock);
	if (r)
		return r;
	do {
		/* First the wait: a peer that never stops sending must not
		 * keep us beyond the deadline. */
		r = wait_ready(sock->fd, POLLIN, deadline_ns);
		if (r)
			return r;
		n = recv(sock->fd, sock->buf + sock->end,
			 sock->capacity - sock->end, MSG_DONTWAIT);
	} while (n < 0 && (errno == EAGAIN || errno == EINTR));
	if (n < 0)
		return -errno;
	if (!n)
		return -ECONNRESET;
	sock->end += (size_t)n;
	return 0;
}

static int sock_receive(void *transport, const char **text, size_t *len,
			uint64_t deadline_ns)
{
	struct qmp_sock *sock = transport;
	int r;

	for (;;) {
		r = scan(sock);
		if (r < 0)
			return r;
		if (r)
			break;
		r = receive_some(sock, deadline_ns);
		if (r)
			return r;
	}
	*text = sock->buf + sock->start;
	*len = sock->scanned - sock->start;
	sock->start = sock->scanned;
	return 0;
}

static int sock_fd(const void *transport)
{
	const struct qmp_sock *sock = transport;

	return sock->fd;
}

static void sock_free(void *transport)
{
	struct qmp_sock *sock = transport;

	close_fd(&sock->fd);
	free(sock->buf);
	free(sock);
}

const struct qmp_transport_ops qmp_sock_ops = {
	.send = sock_send,
	.receive = sock_receive,
	.fd = sock_fd,
	.free = sock_free,
};

void *qmp_sock_new(int fd)
{
	struct qmp_sock *sock = calloc(1, sizeof(*sock));

	if (!sock) {
		close_fd(&fd);
		return NULL;
	}
	sock->fd = fd;
	return sock;
}
