/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/sockdiag.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>

#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include "base/cleanup.h"
#include "base/util.h"

/* A dump that raced with a change of the table is marked and asked for anew;
 * on a busy host the last try is taken as it is. */
#define DUMP_TRIES 4

struct socket_request {
	int netns_fd;
	int domain, type, protocol;
	int result;
};

static int own_socket(int domain, int type, int protocol)
{
	int fd = socket(domain, type | SOCK_CLOEXEC, protocol);

	return fd < 0 ? -errno : fd;
}

static void *socket_thread(void *arg)
{
	struct socket_request *request = arg;

	if (setns(request->netns_fd, CLONE_NEWNET))
		request->result = -errno;
	else
		request->result = own_socket(request->domain, request->type,
					     request->protocol);
	return NULL;
}

static bool is_own_netns(int netns_fd)
{
	struct stat theirs, ours;

	return !fstat(netns_fd, &theirs) &&
	       !stat("/proc/thread-self/ns/net", &ours) &&
	       theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino;
}

int sockdiag_socket(int netns_fd, int domain, int type, int protocol)
{
	struct socket_request request = {
		.netns_fd = netns_fd,
		.domain = domain,
		.type = type,
		.protocol = protocol,
	};
	pthread_t thread;
	int r;

	if (netns_fd < 0 || is_own_netns(netns_fd))
		return own_socket(domain, type, protocol);

	/* A thread, since a way back into the own namespace may fail. */
	r = pthread_create(&thread, NULL, socket_thread, &request);
	if (r)
		return -r;
	pthread_join(thread, NULL);
	return request.result;
}

static void nl_sock_freep(struct nl_sock **sock)
{
	if (*sock)
		nl_socket_free(*sock);
	*sock = NULL;
}

static int errno_from_nl(int nl_error)
{
	switch (-nl_error) {
	case NLE_NOMEM:
		return -ENOMEM;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_OBJ_NOTFOUND: /* ENOENT: no unix_diag in this kernel */
	case NLE_OPNOTSUPP:
		return -ENOENT;
	case NLE_DUMP_INTR:
		return -EAGAIN;
	default:
		return -EIO;
	}
}

static int open_diag(int netns_fd, struct nl_sock **out)
{
	_cleanup_(nl_sock_freep) struct nl_sock *sock = NULL;
	struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	_cleanup_close_ int fd = -1;
	int r;

	fd = sockdiag_socket(netns_fd, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return fd;
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)))
		return -errno;

	sock = nl_socket_alloc();
	if (!sock)
		return -ENOMEM;
	r = nl_socket_set_fd(sock, NETLINK_SOCK_DIAG, fd);
	if (r < 0)
		return errno_from_nl(r);
	steal_fd(&fd);
	nl_socket_disable_seq_check(sock);

	*out = steal_ptr(sock);
	return 0;
}

static int set_name(struct unix_socket *socket, const char *name, size_t len)
{
	/* A path is bound with its NUL; an abstract name has none to strip. */
	if (len && name[0] && !name[len - 1])
		len = strnlen(name, len);
	socket->name = malloc(len + 1);
	if (!socket->name)
		return -ENOMEM;
	if (len)
		memcpy(socket->name, name, len);
	socket->name[len] = '\0';
	socket->name_len = len;
	return 0;
}

struct dump {
	struct unix_sockets *list;
	size_t capacity;
	int error;
};

static struct unix_socket *append(struct dump *dump)
{
	struct unix_sockets *list = dump->list;
	struct unix_socket *grown;
	size_t capacity;

	if (list->n_sockets == dump->capacity) {
		capacity = dump->capacity ? 2 * dump->capacity : 64;
		grown = reallocarray(list->sockets, capacity, sizeof(*grown));
		if (!grown)
			return NULL;
		list->sockets = grown;
		dump->capacity = capacity;
	}
	return &list->sockets[list->n_sockets];
}

static int on_message(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *header = nlmsg_hdr(msg);
	struct unix_diag_msg *diag = nlmsg_data(header);
	const struct unix_diag_vfs *file;
	struct unix_socket *socket;
	const char *name = NULL;
	struct dump *dump = arg;
	size_t name_len = 0;
	struct nlattr *attr;
	int rest;

	if (!nlmsg_valid_hdr(header, sizeof(*diag)))
		return NL_SKIP;
	socket = append(dump);
	if (!socket) {
		dump->error = -ENOMEM;
		return NL_SKIP;
	}
	*socket = (struct unix_socket){
		.inode = diag->udiag_ino,
		.state = diag->udiag_state,
		.type = diag->udiag_type,
	};

	/* Not nlmsg_parse(): UNIX_DIAG_NAME is 0, which it skips. */
	nlmsg_for_each_attr(attr, header, sizeof(*diag), rest)
	{
		if (nla_type(attr) == UNIX_DIAG_NAME) {
			name = nla_data(attr);
			name_len = (size_t)nla_len(attr);
		} else if (nla_type(attr) == UNIX_DIAG_PEER &&
			   nla_len(attr) >= (int)sizeof(uint32_t)) {
			socket->peer_inode = nla_get_u32(attr);
		} else if (nla_type(attr) == UNIX_DIAG_VFS &&
			   nla_len(attr) >= (int)sizeof(*file)) {
			file = nla_data(attr);
			socket->file_inode = file->udiag_vfs_ino;
		}
	}
	dump->error = set_name(socket, name, name_len) ?: dump->error;
	if (socket->name)
		dump->list->n_sockets++;
	return NL_OK;
}

static int dump_once(struct nl_sock *sock, uint32_t states,
		     struct unix_sockets *out)
{
	struct unix_diag_req request = {
		.sdiag_family = AF_UNIX,
		.udiag_states = states,
		.udiag_show =
			UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER,
	};
	struct dump dump = { .list = out };
	int r;

	r = nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, on_message,
				&dump);
	if (r >= 0)
		r = nl_send_simple(sock, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP,
				   &request, sizeof(request));
	if (r >= 0)
		r = nl_recvmsgs_default(sock);
	return r < 0 ? errno_from_nl(r) : dump.error;
}

int sockdiag_list_unix(int netns_fd, uint32_t states, struct unix_sockets *out)
{
	_cleanup_(nl_sock_freep) struct nl_sock *sock = NULL;
	int tries, r;

	*out = (struct unix_sockets){ 0 };
	r = open_diag(netns_fd, &sock);
	if (r)
		return r;

	for (tries = 1;; tries++) {
		r = dump_once(sock, states, out);
		if (!r)
			return 0;
		if (r == -EAGAIN && tries == DUMP_TRIES)
			return 0;
		unix_sockets_deinit(out);
		if (r != -EAGAIN)
			return r;
	}
}

void unix_sockets_deinit(struct unix_sockets *list)
{
	size_t i;

	for (i = 0; i < list->n_sockets; i++)
		free(list->sockets[i].name);
	free(list->sockets);
	*list = (struct unix_sockets){ 0 };
}

const struct unix_socket *unix_sockets_find(const struct unix_sockets *list,
					    uint32_t inode)
{
	size_t i;

	for (i = 0; i < list->n_sockets; i++)
		if (list->sockets[i].inode == inode)
			return &list->sockets[i];
	return NULL;
}
