/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/find.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "qemu/optlist.h"
#include "qemu/sockuse.h"
#include "sys/procfs.h"
#include "sys/procsock.h"
#include "sys/sockdiag.h"

/* QEMU greets from its main loop, so within milliseconds unless that hangs. */
#define GREETING_MS 2000

#define REMEDY "start QEMU with -qmp unix:PATH,server=on,wait=off"

/* Why a socket was not taken; the gravest is what the user is told. */
enum refusal {
	REFUSED_NONE,
	REFUSED_ABSENT,
	REFUSED_UNREACHABLE,
	REFUSED_NOT_QMP,
	REFUSED_FOREIGN,
	REFUSED_BUSY,
};

struct finder {
	pid_t pid;
	int proc_fd;
	int netns_fd;
	struct proc_sockets held;      /* by the target */
	struct unix_sockets listening; /* in its network namespace */
	enum refusal refusal;
	char why[512];
};

static void finder_deinit(struct finder *finder)
{
	proc_sockets_deinit(&finder->held);
	unix_sockets_deinit(&finder->listening);
	close_fd(&finder->netns_fd);
}

static void refuse(struct finder *finder, enum refusal refusal, const char *fmt,
		   ...) __attribute__((format(printf, 3, 4)));

static void refuse(struct finder *finder, enum refusal refusal, const char *fmt,
		   ...)
{
	va_list args;

	if (refusal <= finder->refusal)
		return;
	finder->refusal = refusal;
	va_start(args, fmt);
	vsnprintf(finder->why, sizeof(finder->why), fmt, args);
	va_end(args);
}

/* As QEMU's users write it: '@' for an abstract name's NUL. */
static void show_name(const struct unix_socket *socket, char *buf, size_t size)
{
	if (socket->name_len && !socket->name[0])
		snprintf(buf, size, "@%s", socket->name + 1);
	else
		snprintf(buf, size, "%s", socket->name);
}

/* The socket's file as the target names it. A descriptor, or -errno. */
static int open_in_target(const struct finder *finder, const char *path)
{
	int fd = procfs_open_path(finder->proc_fd, path, O_PATH);

	/* QEMU may have changed its root since it made the socket. */
	if (fd == -ENOENT && *path == '/') {
		fd = open(path, O_PATH | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	return fd;
}

/* Fills in an address that is the same socket but fits: sun_path has 108
 * bytes, of which a prefix like /proc/PID/root takes a part. */
static int address_of(const struct finder *finder, const char *name, size_t len,
		      struct sockaddr_un *addr, socklen_t *addr_len,
		      int *path_fd)
{
	int fd;

	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (len && !name[0]) {
		if (len > sizeof(addr->sun_path))
			return -ENAMETOOLONG;
		memcpy(addr->sun_path, name, len);
		*addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
					len);
		return 0;
	}
	fd = open_in_target(finder, name);
	if (fd < 0)
		return fd;
	*path_fd = fd;
	snprintf(addr->sun_path, sizeof(addr->sun_path), "/proc/self/fd/%d",
		 fd);
	*addr_len = sizeof(*addr);
	return 0;
}

/* Waits where as many wait already as the listener lets; -EAGAIN when that was
 * for GREETING_MS. */
static int connect_to(const struct finder *finder, const char *name, size_t len)
{
	static const struct timeval limit = {
		.tv_sec = GREETING_MS / 1000,
		.tv_usec = GREETING_MS % 1000 * 1000,
	};
	_cleanup_close_ int path_fd = -1;
	_cleanup_close_ int fd = -1;
	struct sockaddr_un addr;
	socklen_t addr_len;
	int r;

	r = address_of(finder, name, len, &addr, &addr_len, &path_fd);
	if (r)
		return r;
	fd = sockdiag_socket(finder->netns_fd, AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0)
		return fd;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)))
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, addr_len))
		return -errno;
	return steal_fd(&fd);
}

/* 0 for the inode of the other end: nobody has accepted yet. */
static int peer_inode(const struct finder *finder, int fd, uint32_t *inode)
{
	const struct unix_socket *socket;
	struct unix_sockets connected;
	struct stat st;
	int r;

	if (fstat(fd, &st))
		return -errno;
	r = sockdiag_list_unix(finder->netns_fd,
			       SOCKDIAG_MASK(SOCKDIAG_ESTABLISHED), &connected);
	if (r)
		return r;
	socket = unix_sockets_find(&connected, (uint32_t)st.st_ino);
	*inode = socket ? socket->peer_inode : 0;
	unix_sockets_deinit(&connected);
	return 0;
}

/* 1: something came, or the other end closed. 0: nothing in time. */
static int wait_readable(int fd, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	uint64_t now;
	int r;

	do {
		now = now_ns();
		if (now >= deadline_ns)
			return 0;
		r = poll(&pfd, 1, (int)((deadline_ns - now) / 1000000 + 1));
	} while (!r || (r < 0 && errno == EINTR));
	return r < 0 ? -errno : 1;
}

static bool has_name(const struct unix_socket *socket,
		     const struct unix_socket *listener)
{
	return socket->name_len == listener->name_len && socket->name_len &&
	       !memcmp(socket->name, listener->name, socket->name_len);
}

/* The other end of an accepted socket that bears the listener's name. */
static pid_t find_client_in(const struct finder *finder, int netns_fd,
			    const struct proc_sockets *held,
			    const struct unix_socket *listener)
{
	struct unix_sockets connected;
	pid_t client = 0;
	size_t i;

	if (sockdiag_list_unix(netns_fd, SOCKDIAG_MASK(SOCKDIAG_ESTABLISHED),
			       &connected))
		return 0;
	for (i = 0; i < connected.n_sockets && !client; i++) {
		const struct unix_socket *socket = &connected.sockets[i];

		if (has_name(socket, listener) && socket->peer_inode &&
		    proc_sockets_has(held, socket->inode))
			client = procsock_find_holder(socket->peer_inode,
						      finder->pid);
	}
	unix_sockets_deinit(&connected);
	return client;
}

/*
 * Who has the monitor, given that a connection is not answered. 0: nobody is
 * seen. The kernel keeps an accepted socket in its client's network namespace
 * (unix_stream_connect() in net/unix/af_unix.c), most likely ours.
 */
static pid_t find_client(const struct finder *finder,
			 const struct unix_socket *listener)
{
	struct proc_sockets held;
	pid_t client;

	if (procsock_list(finder->proc_fd, &held))
		return 0;
	client = find_client_in(finder, finder->netns_fd, &held, listener);
	if (!client)
		client = find_client_in(finder, -1, &held, listener);
	proc_sockets_deinit(&held);
	return client;
}

/* The daemon of all drivers, and that of QEMU's alone. */
static bool is_libvirt(const char *program)
{
	return !strcmp(program, "libvirtd") || !strcmp(program, "virtqemud");
}

/* "-name guest=vm1,debug-threads=on", as libvirt starts a domain's QEMU. */
static char *read_domain_name(const struct finder *finder)
{
	_cleanup_free_ char **argv = NULL;
	size_t n_args;

	if (procfs_read_argv(finder->proc_fd, &argv, &n_args))
		return NULL;
	for (size_t i = 0; i + 1 < n_args; i++) {
		_cleanup_optlist_ struct optlist list = {};
		const char *name;

		if (strcmp(argv[i], "-name") ||
		    optlist_init(&list, argv[i + 1], "guest"))
			continue;
		name = optlist_first(&list);
		return name ? strdup(name) : NULL;
	}
	return NULL;
}

static void refuse_libvirt(struct finder *finder, pid_t client,
			   const char *program, const char *shown)
{
	_cleanup_free_ char *name = read_domain_name(finder);

	refuse(finder, REFUSED_BUSY,
	       "QMP socket %s is in use by pid %d (%s): this is a domain of"
	       " libvirt, which goes by its name: --domain %s",
	       shown, client, program, name ?: "NAME");
}

static void refuse_busy(struct finder *finder,
			const struct unix_socket *listener, const char *shown)
{
	struct proc_status status = { .name = "?" };
	_cleanup_close_ int proc_fd = -1;
	pid_t client = find_client(finder, listener);

	if (!client) {
		refuse(finder, REFUSED_NOT_QMP,
		       "QMP socket %s did not answer in %d s: QEMU hangs, or a"
		       " client that is not seen from here holds it",
		       shown, GREETING_MS / 1000);
		return;
	}
	proc_fd = procfs_open(client);
	if (proc_fd >= 0)
		procfs_read_status(proc_fd, &status);
	if (is_libvirt(status.name)) {
		refuse_libvirt(finder, client, status.name, shown);
		return;
	}
	refuse(finder, REFUSED_BUSY,
	       "QMP socket %s is in use by pid %d (%s); close that client, or"
	       " start QEMU with a second -qmp and pass its path with --qmp",
	       shown, client, status.name);
}

/* The sockets that the target holds now: the accepted one is new. */
static bool is_held_by_target(const struct finder *finder, uint32_t inode)
{
	struct proc_sockets held;
	bool has;

	if (procsock_list(finder->proc_fd, &held))
		return false;
	has = proc_sockets_has(&held, inode);
	proc_sockets_deinit(&held);
	return has;
}

/*
 * Talks to a socket: 0 and a connection, RESULT_UNSUPPORTED with the reason
 * kept, or -errno. It is not spoken to before the target is known to be at the
 * other end.
 */
static int try_socket(struct finder *finder, const struct unix_socket *listener,
		      struct qmp **out)
{
	uint64_t deadline_ns = now_ns() + GREETING_MS * 1000000ull;
	_cleanup_close_ int fd = -1;
	char shown[128], why[256];
	uint32_t inode = 0;
	int r, readable;

	show_name(listener, shown, sizeof(shown));
	fd = connect_to(finder, listener->name, listener->name_len);
	if (fd == -EINTR)
		return fd;
	if (fd == -EAGAIN) {
		refuse_busy(finder, listener, shown);
		return RESULT_UNSUPPORTED;
	}
	if (fd < 0) {
		refuse(finder, REFUSED_UNREACHABLE, "QMP socket %s: %s", shown,
		       strerror(-fd));
		return RESULT_UNSUPPORTED;
	}

	readable = wait_readable(fd, deadline_ns);
	if (readable < 0)
		return readable;
	r = peer_inode(finder, fd, &inode);
	if (r)
		return r;
	if (inode && !is_held_by_target(finder, inode)) {
		refuse(finder, REFUSED_FOREIGN,
		       "QMP socket %s belongs to another process", shown);
		return RESULT_UNSUPPORTED;
	}
	if (!readable && !inode) {
		refuse_busy(finder, listener, shown);
		return RESULT_UNSUPPORTED;
	}
	if (!readable || !inode) {
		refuse(finder, REFUSED_NOT_QMP,
		       "socket %s does not greet as QMP", shown);
		return RESULT_UNSUPPORTED;
	}
	r = qmp_open_fd(steal_fd(&fd), GREETING_MS, out, why, sizeof(why));
	if (r == -ENOMEM)
		return r;
	if (r)
		refuse(finder, REFUSED_NOT_QMP,
		       "socket %s does not greet as QMP: %s", shown, why);
	return r ? RESULT_UNSUPPORTED : 0;
}

static enum socket_use use_of(const struct finder *finder, char *const *argv,
			      const struct unix_socket *socket)
{
	const char *name = socket->name;
	size_t i, n_fds = 0;
	int fds[16];

	for (i = 0; i < finder->held.n_sockets; i++)
		if (finder->held.sockets[i].inode == socket->inode &&
		    n_fds < ARRAY_SIZE(fds))
			fds[n_fds++] = finder->held.sockets[i].fd;
	if (socket->name_len && !name[0])
		name++;
	return socket_use_from_argv(argv, name, fds, n_fds);
}

static bool is_busy(const struct finder *finder,
		    const struct unix_socket *listener)
{
	return find_client(finder, listener);
}

/* Tries the target's listening sockets of one use; of these, those that have a
 * client, or have none. 0: one is QMP. */
static int try_some(struct finder *finder, char *const *argv,
		    enum socket_use use, bool busy, struct qmp **out)
{
	size_t i;
	int r;

	for (i = 0; i < finder->listening.n_sockets; i++) {
		const struct unix_socket *socket =
			&finder->listening.sockets[i];

		if (socket->type != SOCK_STREAM || !socket->name_len ||
		    !proc_sockets_has(&finder->held, socket->inode) ||
		    use_of(finder, argv, socket) != use ||
		    is_busy(finder, socket) != busy)
			continue;
		r = try_socket(finder, socket, out);
		if (r != RESULT_UNSUPPORTED)
			return r;
	}
	return RESULT_UNSUPPORTED;
}

/* Who waits for a busy one waits in vain for GREETING_MS. */
static int try_all(struct finder *finder, char *const *argv,
		   enum socket_use use, struct qmp **out)
{
	int r = try_some(finder, argv, use, false, out);

	return r == RESULT_UNSUPPORTED ? try_some(finder, argv, use, true, out)
				       : r;
}

static int search(struct finder *finder, struct qmp **out)
{
	_cleanup_free_ char **argv = NULL;
	size_t n_args;
	int r;

	r = procfs_read_argv(finder->proc_fd, &argv, &n_args);
	if (r)
		return r;
	refuse(finder, REFUSED_ABSENT,
	       "QEMU listens on no QMP unix socket; " REMEDY);
	r = try_all(finder, argv, SOCKET_USE_QMP, out);
	if (r == RESULT_UNSUPPORTED)
		r = try_all(finder, argv, SOCKET_USE_UNKNOWN, out);
	return r;
}

/*
 * The target's listener that a path leads to, whatever name it was bound by
 * (relative, through a symbolic link), or NULL. Inode numbers of two file
 * systems may be the same; what is connected to is checked in any case.
 */
static const struct unix_socket *find_listener(const struct finder *finder,
					       const char *path)
{
	_cleanup_close_ int fd = open_in_target(finder, path);
	struct stat st;
	size_t i;

	if (fd < 0 || fstat(fd, &st))
		return NULL;
	for (i = 0; i < finder->listening.n_sockets; i++) {
		const struct unix_socket *socket =
			&finder->listening.sockets[i];

		if (socket->file_inode == (uint32_t)st.st_ino &&
		    proc_sockets_has(&finder->held, socket->inode))
			return socket;
	}
	return NULL;
}

static int use_given(struct finder *finder, const char *path, struct qmp **out)
{
	_cleanup_free_ char *name = strdup(path);
	struct unix_socket given = { .name = name, .name_len = strlen(path) };
	const struct unix_socket *listener = NULL;

	if (!name)
		return -ENOMEM;
	if (!given.name_len) {
		refuse(finder, REFUSED_ABSENT, "--qmp: the path is empty");
		return RESULT_UNSUPPORTED;
	}
	if (name[0] == '@')
		name[0] = '\0';
	else
		listener = find_listener(finder, path);
	return try_socket(finder, listener ?: &given, out);
}

static int finder_init(struct finder *finder, pid_t pid, int proc_fd)
{
	int r;

	*finder = (struct finder){ .pid = pid, .proc_fd = proc_fd };
	finder->netns_fd = openat(proc_fd, "ns/net", O_RDONLY | O_CLOEXEC);
	r = procsock_list(proc_fd, &finder->held);
	if (r)
		return log_errno(r, "pid %d: list of its descriptors: %m", pid);
	r = sockdiag_list_unix(finder->netns_fd, SOCKDIAG_MASK(SOCKDIAG_LISTEN),
			       &finder->listening);
	if (r == -ENOENT) {
		log_error("this kernel cannot list unix sockets"
			  " (CONFIG_UNIX_DIAG), so QMP cannot be found");
		return RESULT_UNSUPPORTED;
	}
	if (r)
		return log_errno(r, "pid %d: list of its unix sockets: %m",
				 pid);
	return 0;
}

int find_qmp(pid_t pid, int proc_fd, const char *qmp_path, struct qmp **out)
{
	_cleanup_(finder_deinit) struct finder finder;
	int r;

	r = finder_init(&finder, pid, proc_fd);
	if (r)
		return r;
	r = qmp_path ? use_given(&finder, qmp_path, out) : search(&finder, out);
	if (r < 0)
		return log_errno(r, "pid %d: search for QMP: %m", pid);
	if (r)
		log_error("pid %d: %s", pid, finder.why);
	return r;
}

int find_qmp_silently(pid_t pid, int proc_fd, struct qmp **out)
{
	_cleanup_(finder_deinit) struct finder finder;
	int r = finder_init(&finder, pid, proc_fd);

	return r ? r : search(&finder, out);
}
