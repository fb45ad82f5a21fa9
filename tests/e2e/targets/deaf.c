/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * To be preloaded by a QEMU, for what is done to its monitor by the word in the
 * file that DEAF names, if that is there when `stop` comes by a connection:
 *
 *	heard	the command is carried out; from then on nothing that comes by
 *		the connection is heard, and nothing is sent
 *	unheard	the same, but the command is not heard either
 *	slow	it is heard half a second later
 *
 * Other connections work.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_MAX 1024

static const char word[] = "\"stop\"";

static struct {
	unsigned n_matched; /* of `word`: QEMU reads byte by byte */
	char mode;	    /* the first letter, once it has come */
} fds[FDS_MAX];

static ssize_t (*real_recvmsg)(int, struct msghdr *, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static int (*real_close)(int);

static __attribute__((constructor)) void find_real(void)
{
	real_recvmsg = dlsym(RTLD_NEXT, "recvmsg");
	real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
	real_close = dlsym(RTLD_NEXT, "close");
}

static char read_mode(void)
{
	const char *path = getenv("DEAF");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	char first = 0;

	if (fd < 0)
		return 0;
	if (read(fd, &first, 1) != 1)
		first = 0;
	real_close(fd);
	return first;
}

/* Whether the byte is heard. */
static int hear(int fd, char c)
{
	if (fds[fd].mode == 'h') {
		/* The rest of the line is the command's. */
		if (c == '\n')
			fds[fd].mode = 'H';
		return 1;
	}
	if (fds[fd].mode)
		return 0;
	if (c != word[fds[fd].n_matched])
		fds[fd].n_matched = 0;
	if (c == word[fds[fd].n_matched])
		fds[fd].n_matched++;
	if (word[fds[fd].n_matched])
		return 1;
	fds[fd].n_matched = 0;
	switch (read_mode()) {
	case 'h':
		fds[fd].mode = 'h';
		return 1;
	case 'u':
		fds[fd].mode = 'U';
		return 0;
	case 's':
		usleep(500000);
	}
	return 1;
}

ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	ssize_t n = real_recvmsg(fd, msg, flags);

	if (n != 1 || fd >= FDS_MAX ||
	    hear(fd, *(char *)msg->msg_iov->iov_base))
		return n;
	errno = EAGAIN;
	return -1;
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	ssize_t all = 0;

	if (fd < 0 || fd >= FDS_MAX || !fds[fd].mode)
		return real_sendmsg(fd, msg, flags);
	for (size_t i = 0; i < msg->msg_iovlen; i++)
		all += (ssize_t)msg->msg_iov[i].iov_len;
	return all;
}

/* The number is another's then. */
int close(int fd)
{
	if (fd >= 0 && fd < FDS_MAX) {
		fds[fd].mode = 0;
		fds[fd].n_matched = 0;
	}
	return real_close(fd);
}
