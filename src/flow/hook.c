/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/hook.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/pidfd.h"

/* Where the helper has its end of the socket pair. */
#define HELPER_SOCK 3

/* What the helper answers. */
struct outcome {
	int error;  /* -errno: it could not be run */
	int status; /* of wait(2) */
};

static void set_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		signal(signals[i], SIG_DFL);
}

static __attribute__((noreturn)) void exec_shell(const char *command)
{
	/* If someone kills the helper alone. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

/* Until the command ends, or the dumper hangs up, by dying. */
static void wait_for(pid_t shell, struct outcome *outcome)
{
	_cleanup_close_ int pidfd = pidfd_from_pid(shell);
	struct pollfd fds[] = {
		{ .fd = pidfd, .events = POLLIN },
		{ .fd = HELPER_SOCK, .events = POLLIN },
	};

	if (pidfd < 0) {
		outcome->error = pidfd;
		return;
	}
	while (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno == EINTR)
		;
	if (fds[1].revents)
		kill(0, SIGKILL);
	if (waitpid(shell, &outcome->status, 0) < 0)
		outcome->error = -errno;
}

/* The helper's life. Nothing of the dumper's may stay open in it: the keeper,
 * for one, knows the dumper's death by its socket. */
static __attribute__((noreturn)) void help(int sock, const char *command,
					   const struct hook_env *env)
{
	struct outcome outcome = {};
	pid_t shell;
	char go;
	int null;

	setsid();
	prctl(PR_SET_NAME, "snapuffd-hook");
	set_signals();
	for (; env->name; env++)
		if (env->value)
			setenv(env->name, env->value, 1);
	null = open("/dev/null", O_RDONLY);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 ||
	    dup2(STDERR_FILENO, STDOUT_FILENO) < 0 ||
	    dup2(sock, HELPER_SOCK) < 0 ||
	    fcntl(HELPER_SOCK, F_SETFD, FD_CLOEXEC) ||
	    close_range(HELPER_SOCK + 1, ~0U, 0))
		_exit(1);

	if (recv(HELPER_SOCK, &go, sizeof(go), 0) != sizeof(go))
		_exit(0);
	INJECT_HERE("hook-run");
	shell = fork();
	if (!shell)
		exec_shell(command);
	if (shell < 0)
		outcome.error = -errno;
	else
		wait_for(shell, &outcome);
	send(HELPER_SOCK, &outcome, sizeof(outcome), MSG_NOSIGNAL);
	_exit(0);
}

int hook_start(struct hook *hook, const char *command, unsigned timeout_s,
	       pid_t target_pid, const struct hook_env *env)
{
	int socks[2];
	pid_t pid;

	*hook = HOOK_INIT;
	if (!command)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		return log_errno(-errno, "--exec-frozen: socketpair: %m");
	pid = fork();
	if (!pid)
		help(socks[1], command, env);
	close(socks[1]);
	if (pid < 0) {
		close(socks[0]);
		return log_errno(-errno, "--exec-frozen: fork: %m");
	}
	*hook = (struct hook){ .pid = pid,
			       .sock = socks[0],
			       .target_pid = target_pid,
			       .timeout_s = timeout_s };
	return 0;
}

/* 0 once there is an answer, -ETIMEDOUT, -EINTR, or -errno. */
static int wait_for_answer(const struct hook *hook)
{
	uint64_t deadline = now_ns() + (uint64_t)hook->timeout_s * 1000000000;
	struct pollfd fd = { .fd = hook->sock, .events = POLLIN };

	for (;;) {
		uint64_t now = now_ns();
		int r;

		if (interrupt_pending())
			return -EINTR;
		if (now >= deadline)
			return -ETIMEDOUT;
		r = poll(&fd, 1, (int)((deadline - now) / 1000000) + 1);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

/* The helper is not waited for yet, so its id is nobody else's. */
static void kill_session(const struct hook *hook)
{
	kill(-hook->pid, SIGKILL);
	kill(hook->pid, SIGKILL);
}

static int judge(const struct hook *hook, const struct outcome *outcome)
{
	int status = outcome->status;

	if (outcome->error)
		return log_errno(outcome->error, "pid %d: --exec-frozen: %m",
				 hook->target_pid);
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	if (WIFEXITED(status))
		log_error("pid %d: --exec-frozen: the command failed with exit"
			  " status %d; no snapshot was made",
			  hook->target_pid, WEXITSTATUS(status));
	else
		log_error("pid %d: --exec-frozen: the command was killed by"
			  " signal %d; no snapshot was made",
			  hook->target_pid, WTERMSIG(status));
	return RESULT_FAILED;
}

int hook_run(struct hook *hook)
{
	struct outcome outcome;
	uint64_t started_ns;
	char go = 1;
	int r;

	if (hook->pid < 0)
		return 0;
	if (send(hook->sock, &go, sizeof(go), MSG_NOSIGNAL) != sizeof(go))
		return log_errno(-errno, "--exec-frozen: the helper died: %m");
	started_ns = now_ns();
	r = INJECT("hook-wait") ?: wait_for_answer(hook);
	hook->took_ns = now_ns() - started_ns;
	if (r)
		kill_session(hook);
	if (r == -ETIMEDOUT) {
		log_error("pid %d: --exec-frozen: the command took more than"
			  " %u s and was killed; no snapshot was made",
			  hook->target_pid, hook->timeout_s);
		return RESULT_FAILED;
	}
	if (r)
		return r;
	if (recv(hook->sock, &outcome, sizeof(outcome), 0) != sizeof(outcome))
		return log_errno(-EPIPE, "--exec-frozen: the helper died: %m");
	return judge(hook, &outcome);
}

void hook_stop(struct hook *hook)
{
	close_fd(&hook->sock);
	if (hook->pid > 0)
		while (waitpid(hook->pid, NULL, 0) < 0 && errno == EINTR)
			;
	hook->pid = -1;
}
