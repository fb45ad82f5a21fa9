/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the monitor is found: what argv says of a socket; and the search in a
 * process that plays QEMU, which is this program again under QEMU's argv.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/result.h"
#include "base/util.h"
#include "qemu/find.h"
#include "qemu/sockuse.h"
#include "sys/procfs.h"
#include "sys/sockdiag.h"

#define ARGV(...) ((char *const[]){ "qemu", __VA_ARGS__, NULL })

static enum socket_use use(char *const *argv, const char *name)
{
	return socket_use_from_argv(argv, name, (int[]){ 7 }, 1);
}

static void test_argv_qmp(void **state)
{
	(void)state;
	assert_int_equal(use(ARGV("-qmp", "unix:/q,server=on,wait=off"), "/q"),
			 SOCKET_USE_QMP);
	assert_int_equal(use(ARGV("--qmp-pretty", "unix:q,server,nowait"), "q"),
			 SOCKET_USE_QMP);
	assert_int_equal(use(ARGV("-qmp", "unix:/a,,b,server=on"), "/a,b"),
			 SOCKET_USE_QMP);
	assert_int_equal(use(ARGV("-mon", "chardev=c,mode=control", "-chardev",
				  "socket,id=c,path=/q,server=on"),
			     "/q"),
			 SOCKET_USE_QMP);
	assert_int_equal(use(ARGV("-chardev", "socket,path=q,abstract=on,id=c",
				  "-mon", "c,mode=control"),
			     "q"),
			 SOCKET_USE_QMP);
	assert_int_equal(use(ARGV("-chardev", "socket,id=c,path=/q", "-qmp",
				  "chardev:c"),
			     "/q"),
			 SOCKET_USE_QMP);
	/* libvirt's way: the socket is handed in */
	assert_int_equal(use(ARGV("-chardev", "socket,id=m,fd=7,server=on",
				  "-mon", "chardev=m,id=m,mode=control"),
			     "/var/lib/monitor.sock"),
			 SOCKET_USE_QMP);
}

static void test_argv_other(void **state)
{
	(void)state;
	assert_int_equal(use(ARGV("-serial", "unix:/q,server=on"), "/q"),
			 SOCKET_USE_OTHER);
	assert_int_equal(use(ARGV("-monitor", "unix:/q,server"), "/q"),
			 SOCKET_USE_OTHER);
	assert_int_equal(use(ARGV("-vnc", "unix:/q"), "/q"), SOCKET_USE_OTHER);
	assert_int_equal(use(ARGV("-chardev", "socket,id=c,path=/q", "-mon",
				  "chardev=c"),
			     "/q"),
			 SOCKET_USE_OTHER);
	assert_int_equal(use(ARGV("-chardev", "socket,id=c,path=/q", "-mon",
				  "chardev=cc,mode=control"),
			     "/q"),
			 SOCKET_USE_OTHER);
	assert_int_equal(use(ARGV("-chardev", "socket,id=c,fd=7", "-serial",
				  "chardev:c"),
			     "/q"),
			 SOCKET_USE_OTHER);
	assert_int_equal(
		use(ARGV("-netdev", "{\"addr\": {\"path\": \"/q\"}}"), "/q"),
		SOCKET_USE_OTHER);
}

static void test_argv_unknown(void **state)
{
	char *const none[] = { NULL };

	(void)state;
	assert_int_equal(use(none, "/q"), SOCKET_USE_UNKNOWN);
	assert_int_equal(use(ARGV("-drive", "file=/q.img", "-x", "/a/q"), "/q"),
			 SOCKET_USE_UNKNOWN);
	assert_int_equal(use(ARGV("-qmp", "unix:/q2,server=on"), "/q"),
			 SOCKET_USE_UNKNOWN);
	assert_int_equal(use(ARGV("-qmp"), ""), SOCKET_USE_UNKNOWN);
	assert_int_equal(
		use(ARGV("-qmp", "", "-mon", ",,,=", "-chardev", "="), "/q"),
		SOCKET_USE_UNKNOWN);
	assert_int_equal(use(ARGV("-chardev", "socket,id=c,fd=7x"), "/q"),
			 SOCKET_USE_UNKNOWN);
}

/* The player: listens where argv says, in the manner that the name tells. */

#define GREETING                                                           \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, " \
	"\"major\": 7}, \"package\": \"\"}, \"capabilities\": []}}\r\n"

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(addr);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, path);
	if (*path == '@') {
		addr.sun_path[0] = '\0';
		len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
				  strlen(path));
	}
	unlink(path);
	if (bind(fd, (struct sockaddr *)&addr, len) || listen(fd, 1))
		exit(9);
	return fd;
}

static void serve_qmp(int listener)
{
	static const char ok[] = "{\"return\": {}, \"id\": 1}\r\n";
	char buf[256];
	int fd;

	for (;;) {
		fd = accept(listener, NULL, NULL);
		if (write(fd, GREETING, sizeof(GREETING) - 1) > 0 &&
		    read(fd, buf, sizeof(buf)) > 0 &&
		    write(fd, ok, sizeof(ok) - 1) > 0)
			while (read(fd, buf, sizeof(buf)) > 0)
				;
		close(fd);
	}
}

/* A serial port that is touched betrays it: the program ends. */
static void *spring_trap(void *arg)
{
	struct pollfd trap = { .fd = *(int *)arg, .events = POLLIN };

	poll(&trap, 1, -1);
	_exit(9);
}

static int play(char **argv)
{
	const char *mode = argv[2];
	int fd = -1, trap = -1;
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 3; argv[i]; i++) {
		char path[108];

		if (sscanf(argv[i], "unix:%107[^,]", path) != 1)
			continue;
		if (!strcmp(argv[i - 1], "-qmp"))
			fd = listen_at(path);
		else if (!strcmp(argv[i - 1], "-serial"))
			trap = listen_at(path);
	}
	if (!strcmp(mode, "unnamed")) {
		char path[108];

		snprintf(path, sizeof(path), "%s/unnamed", getenv("TEST_DIR"));
		fd = listen_at(path);
	}
	if (trap >= 0)
		pthread_create(&thread, NULL, spring_trap, &trap);
	if (write(STDOUT_FILENO, "x", 1) != 1)
		return 9;
	if (!strcmp(mode, "silent"))
		accept(fd, NULL, NULL);
	if (!strcmp(mode, "human"))
		fd = (int)write(accept(fd, NULL, NULL), "QEMU 7.2 >\r\n", 12);
	if (fd >= 0 && (!strcmp(mode, "qmp") || !strcmp(mode, "unnamed")))
		serve_qmp(fd);
	pause();
	return 0;
}

struct player {
	pid_t pid;
	int proc_fd;
};

static char dir[] = "/tmp/snapuffd-find.XXXXXX";

static void start(struct player *player, const char *mode, const char *option,
		  const char *where)
{
	char qmp[256], serial[256], c;
	int pipe_fds[2];

	snprintf(qmp, sizeof(qmp), "unix:%s,server=on,wait=off", where ?: "");
	snprintf(serial, sizeof(serial), "unix:%s/serial-%s,server=on", dir,
		 mode);
	assert_int_equal(pipe(pipe_fds), 0);
	player->pid = fork();
	if (!player->pid) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		setenv("TEST_DIR", dir, 1);
		if (chdir(dir))
			_exit(9);
		execl("/proc/self/exe", "qemu", "play", mode, "-serial", serial,
		      option, qmp, NULL);
		_exit(9);
	}
	close(pipe_fds[1]);
	assert_int_equal(read(pipe_fds[0], &c, 1), 1);
	close(pipe_fds[0]);
	player->proc_fd = procfs_open(player->pid);
	assert_true(player->proc_fd >= 0);
}

static void stop(struct player *player)
{
	int status;

	/* Alive until now: so nobody touched its serial port. */
	assert_int_equal(waitpid(player->pid, &status, WNOHANG), 0);
	kill(player->pid, SIGKILL);
	waitpid(player->pid, &status, 0);
	close(player->proc_fd);
}

static int find(const struct player *player, const char *path)
{
	struct qmp *qmp = NULL;
	int r = find_qmp(player->pid, player->proc_fd, path, &qmp);

	if (!r)
		assert_int_equal(qmp_get_version(qmp)->major, 7);
	qmp_free(qmp);
	return r;
}

static const char *in_dir(const char *name)
{
	static char path[200];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static int setup(void **state)
{
	struct unix_sockets list;

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	if (sockdiag_list_unix(-1, SOCKDIAG_MASK(SOCKDIAG_LISTEN), &list)) {
		print_message("no unix_diag in this kernel\n");
		return -1;
	}
	unix_sockets_deinit(&list);
	return 0;
}

static int teardown(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void test_find_named(void **state)
{
	struct player player;

	(void)state;
	start(&player, "qmp", "-qmp", in_dir("named"));
	assert_int_equal(find(&player, NULL), 0);
	assert_int_equal(find(&player, NULL), 0);
	assert_int_equal(find(&player, in_dir("named")), 0);
	assert_int_equal(find(&player, "named"), 0);
	assert_int_equal(find(&player, in_dir("none")), RESULT_UNSUPPORTED);
	assert_int_equal(find(&player, ""), RESULT_UNSUPPORTED);
	stop(&player);
}

static void test_find_relative_and_abstract(void **state)
{
	struct player player;
	char name[64];

	(void)state;
	start(&player, "qmp", "-qmp", "relative");
	assert_int_equal(find(&player, NULL), 0);
	stop(&player);

	snprintf(name, sizeof(name), "@snapuffd-test-%d", getpid());
	start(&player, "qmp", "-qmp", name);
	assert_int_equal(find(&player, NULL), 0);
	assert_int_equal(find(&player, name), 0);
	stop(&player);
}

static void test_find_unnamed(void **state)
{
	struct player player;

	(void)state;
	start(&player, "unnamed", "-x", NULL);
	assert_int_equal(find(&player, NULL), 0);
	stop(&player);
}

static void test_find_none(void **state)
{
	struct player player;

	(void)state;
	start(&player, "none", "-x", NULL);
	assert_int_equal(find(&player, NULL), RESULT_UNSUPPORTED);
	stop(&player);
	start(&player, "human", "-qmp", in_dir("human"));
	assert_int_equal(find(&player, NULL), RESULT_UNSUPPORTED);
	stop(&player);
	start(&player, "silent", "-qmp", in_dir("silent"));
	assert_int_equal(find(&player, NULL), RESULT_UNSUPPORTED);
	stop(&player);
}

static void test_find_foreign(void **state)
{
	struct player player, other;

	(void)state;
	start(&player, "none", "-x", NULL);
	start(&other, "qmp", "-qmp", in_dir("foreign"));
	assert_int_equal(find(&player, in_dir("foreign")), RESULT_UNSUPPORTED);
	stop(&player);
	stop(&other);
}

static void test_find_busy(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct player player;
	uint64_t start_ns;
	int fd, more[3];
	char c;

	(void)state;
	start(&player, "qmp", "-qmp", in_dir("busy"));
	strcpy(addr.sun_path, in_dir("busy"));
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (void *)&addr, sizeof(addr)), 0);
	assert_int_equal(read(fd, &c, 1), 1);

	assert_int_equal(find(&player, NULL), RESULT_UNSUPPORTED);
	/* Nor must it hang where no more may wait in the line. */
	for (int i = 0; i < 3; i++) {
		more[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(more[i], (void *)&addr, sizeof(addr));
	}
	start_ns = now_ns();
	assert_int_equal(find(&player, in_dir("busy")), RESULT_UNSUPPORTED);
	assert_true(now_ns() - start_ns > 1900000000ull);
	for (int i = 0; i < 3; i++)
		close(more[i]);
	close(fd);
	/* The player has to see off those who waited, first; the line is full
	 * until then, and that is no reason to give up. */
	assert_int_equal(find(&player, NULL), 0);
	stop(&player);
}

static void test_sockdiag(void **state)
{
	const struct unix_socket *socket;
	struct unix_sockets list;
	struct stat st[2];
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	fstat(pair[0], &st[0]);
	fstat(pair[1], &st[1]);
	assert_int_equal(sockdiag_list_unix(-1,
					    SOCKDIAG_MASK(SOCKDIAG_ESTABLISHED),
					    &list),
			 0);
	socket = unix_sockets_find(&list, (uint32_t)st[0].st_ino);
	assert_non_null(socket);
	assert_int_equal(socket->peer_inode, st[1].st_ino);
	assert_int_equal(socket->type, SOCK_STREAM);
	assert_int_equal(socket->name_len, 0);
	assert_null(unix_sockets_find(&list, UINT32_MAX));
	unix_sockets_deinit(&list);
	close(pair[0]);
	close(pair[1]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_argv_qmp),
		cmocka_unit_test(test_argv_other),
		cmocka_unit_test(test_argv_unknown),
		cmocka_unit_test(test_sockdiag),
		cmocka_unit_test(test_find_named),
		cmocka_unit_test(test_find_relative_and_abstract),
		cmocka_unit_test(test_find_unnamed),
		cmocka_unit_test(test_find_none),
		cmocka_unit_test(test_find_foreign),
		cmocka_unit_test(test_find_busy),
	};

	if (argc > 2 && !strcmp(argv[1], "play"))
		return play(argv);
	return cmocka_run_group_tests(tests, setup, teardown);
}
