/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/util.h"
#include "qemu/optlist.h"
#include "sys/deny.h"
#include "sys/pidfd.h"

/* How long QEMU may take from exec to its monitor: it maps and, if told so,
 * fills all RAM before. */
#define GREETING_MS 60000
/* Between looks at the guest's state. */
#define POLL_NS	    1000000

/* How long one that hung up may take to be gone. */
#define EXIT_MS	  1000
/* Between looks at the signal flag. */
#define SIGNAL_MS 100

#define MONITOR_ID "snapuffd"
#define LOG_MAX	   (64 * KIB)

/* Descriptors that QEMU gets. */
struct inherited {
	int monitor, stream, log;
};

static void keep_open(int fd)
{
	fcntl(fd, F_SETFD, 0);
}

/* In the child. What goes wrong ends up in the log, as QEMU's own words. */
static void run(char *const *argv, const struct launch_options *options,
		const struct inherited *fds)
{
	int null = open("/dev/null", O_RDONLY);
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	dup2(null, 0);
	dup2(fds->log, 1);
	dup2(fds->log, 2);
	if (null > 2)
		close(null);
	/* What whoever called us had open is not QEMU's. A command line of
	 * theirs may mean some of it. */
	if (!options->keep_fds)
		close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
	keep_open(fds->monitor);
	keep_open(fds->stream);
	if (options->cwd && chdir(options->cwd))
		dprintf(2, "%s: %s\n", options->cwd, strerror(errno));
	else if (options->deny_punching && deny_punching())
		dprintf(2, "seccomp: %s\n", strerror(errno));
	else if (execvp(argv[0], argv))
		dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* The command line of a VM that was itself launched so has them already. */
static void remove_ends(struct cmdline *line)
{
	for (size_t i = line->n_options; i-- > 0;) {
		const struct cmdline_option *option = &line->options[i];
		bool is_mon = !strcmp(option->name, "mon");
		_cleanup_optlist_ struct optlist list = {};
		const char *id;

		if (!is_mon && strcmp(option->name, "chardev"))
			continue;
		if (optlist_init(&list, option->value,
				 is_mon ? "chardev" : "backend"))
			continue;
		id = is_mon ? optlist_first(&list) : optlist_get(&list, "id");
		if (id && !strcmp(id, MONITOR_ID))
			cmdline_remove(line, i);
	}
}

static void add_ends(struct cmdline *line, const struct inherited *fds)
{
	cmdline_add_format(line, "chardev", "socket,id=" MONITOR_ID ",fd=%d",
			   fds->monitor);
	cmdline_add(line, "mon", "chardev=" MONITOR_ID ",mode=control");
	cmdline_add_format(line, "incoming", "fd:%d", fds->stream);
}

int launch_start(struct launch *launch, struct cmdline *line,
		 const struct launch_options *options)
{
	_cleanup_close_ int monitor = -1, stream = -1, log = -1;
	_cleanup_free_ char **argv = NULL;
	struct inherited fds;
	int socks[2], pipe_ends[2];

	*launch = LAUNCH_INIT;
	launch->log = options->log;
	log = open(options->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
		   0600);
	if (log < 0)
		return log_errno(-errno, "%s: cannot create it: %m",
				 options->log);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		return log_errno(-errno, "socketpair: %m");
	launch->qmp_fd = socks[0];
	monitor = socks[1];
	if (pipe2(pipe_ends, O_CLOEXEC))
		return log_errno(-errno, "pipe: %m");
	stream = pipe_ends[0];
	launch->stream_fd = pipe_ends[1];

	fds = (struct inherited){ monitor, stream, log };
	remove_ends(line);
	add_ends(line, &fds);
	argv = cmdline_to_argv(line);
	if (!argv)
		return -ENOMEM;

	launch->started_ns = now_ns();
	launch->pid = fork();
	if (launch->pid < 0)
		return log_errno(-errno, "fork: %m");
	if (!launch->pid)
		run(argv, options, &fds);
	launch->pidfd = pidfd_from_pid(launch->pid);
	return launch->pidfd < 0 ? log_errno(launch->pidfd, "pidfd: %m") : 0;
}

/* Keeps what QEMU said last. Returns the code for its end. */
static int take_last_words(struct launch *launch)
{
	_cleanup_free_ char *text = NULL;
	const char *last = "it ended without a word";
	char *line, *next;

	/* What killed it has been written by then. */
	if (!pidfd_is_alive(launch->pidfd) || !launch->qmp)
		pidfd_wait_exit(launch->pidfd, EXIT_MS);
	if (!io_read_file(AT_FDCWD, launch->log, LOG_MAX, &text, NULL))
		for (line = strtok_r(text, "\n", &next); line;
		     line = strtok_r(NULL, "\n", &next))
			last = line;
	free(launch->last_words);
	launch->last_words = strdup(last);
	return launch->last_words ? -ECONNABORTED : -ENOMEM;
}

/* Which state the VM is in: 0, or as launch_wait(). */
static int query_state(struct launch *launch, bool *loaded, bool *running)
{
	_cleanup_json_ json_t *result = NULL;
	const char *status;
	int r = qmp_execute(launch->qmp, "query-status", NULL, &result);

	if (r)
		return take_last_words(launch);
	status = json_string_value(json_object_get(result, "status"));
	*loaded = status && strcmp(status, "inmigrate");
	*running = status && !strcmp(status, "running");
	return 0;
}

/* QEMU makes its monitor when it has its RAM. Waits for a first sign of it, or
 * of its end. */
static int wait_for_monitor(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	uint64_t deadline_ns = now_ns() + GREETING_MS * 1000000ull;

	while (now_ns() < deadline_ns) {
		if (interrupt_pending())
			return -EINTR;
		if (poll(&pfd, 1, SIGNAL_MS) > 0)
			return 0;
	}
	return 0;
}

int launch_wait(struct launch *launch, bool paused)
{
	struct timespec pause = { .tv_nsec = POLL_NS };
	bool loaded = false, running = false;
	char why[256];
	int r;

	r = wait_for_monitor(launch->qmp_fd);
	if (r)
		return r;
	r = qmp_open_fd(steal_fd(&launch->qmp_fd), QMP_DEFAULT_TIMEOUT_MS,
			&launch->qmp, why, sizeof(why));
	if (r == -ENOMEM)
		return r;
	if (r)
		return take_last_words(launch);
	for (;;) {
		if (interrupt_pending())
			return -EINTR;
		r = query_state(launch, &loaded, &running);
		if (r)
			return r;
		if (running || (paused && loaded))
			return 0;
		/* All was read, but QEMU could not take over: the disks. */
		if (loaded)
			return take_last_words(launch);
		nanosleep(&pause, NULL);
	}
}

void launch_leave(struct launch *launch)
{
	launch->pid = -1;
}

void launch_deinit(struct launch *launch)
{
	launch->qmp = qmp_free(launch->qmp);
	close_fd(&launch->qmp_fd);
	close_fd(&launch->stream_fd);
	if (launch->pid > 0) {
		kill(launch->pid, SIGKILL);
		while (waitpid(launch->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	launch->pid = -1;
	close_fd(&launch->pidfd);
	free_ptr(&launch->last_words);
}
