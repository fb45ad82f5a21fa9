/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/front.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/caps.h"
#include "sys/pidfd.h"

static const int handed_on[] = { SIGINT, SIGTERM, SIGHUP };

static sigset_t handed_on_set(void)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(handed_on); i++)
		sigaddset(&set, handed_on[i]);
	return set;
}

/* killall(1) goes by the one name, pidof(8) by the other. */
static void take_a_name(void)
{
	static const char name[] = "snapuffd-engine", brief[] = "engine";
	char *argv0 = program_invocation_name;
	size_t room = strlen(argv0);

	prctl(PR_SET_NAME, name);
	if (room >= strlen(brief))
		strncpy(argv0, room < strlen(name) ? brief : name, room);
}

static void become_engine(pid_t front)
{
	sigset_t set = handed_on_set();

	setsid();
	take_a_name();
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	/* It had died before we asked to be told. */
	if (getppid() != front)
		raise(SIGTERM);
}

/* The engine has them: who reads its output is to see its end, even if the
 * front is stopped. And what cannot be done by accident needs no rights. */
static void give_up_what_is_not_needed(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
	}
	caps_reduce(NULL, 0);
}

/* Until it ends. */
static int hand_on_signals(int engine_pidfd, int signal_fd)
{
	struct signalfd_siginfo info;

	for (;;) {
		struct pollfd fds[] = {
			{ .fd = engine_pidfd, .events = POLLIN },
			{ .fd = signal_fd, .events = POLLIN },
		};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (fds[0].revents)
			return 0;
		if (read(signal_fd, &info, sizeof(info)) == sizeof(info))
			pidfd_kill(engine_pidfd, (int)info.ssi_signo);
	}
}

static int wait_for(pid_t engine, int signal_fd, int *status)
{
	_cleanup_close_ int pidfd = pidfd_from_pid(engine);
	int r = pidfd < 0 ? pidfd : hand_on_signals(pidfd, signal_fd);

	/* Nobody could tell it anything any more. */
	if (r) {
		log_errno(r, "dump: watching its process %d: %m", engine);
		kill(engine, SIGTERM);
	}
	while (waitpid(engine, status, 0) < 0)
		if (errno != EINTR)
			return log_errno(-errno,
					 "dump: waiting for its process %d: %m",
					 engine);
	return 0;
}

/* As whoever waits for us would have seen it; the core, if any, is written. */
static void die_by(int sig)
{
	const struct rlimit none = {};
	sigset_t set;

	setrlimit(RLIMIT_CORE, &none);
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
}

static int result_of(pid_t engine, int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	log_error(
		"dump: its process %d was killed by signal %d; the target runs on, and the next dump to the same place removes what this one left there",
		engine, WTERMSIG(status));
	die_by(WTERMSIG(status));
	return RESULT_FAILED;
}

bool front_wait(int *result)
{
	_cleanup_close_ int signal_fd = -1;
	sigset_t set = handed_on_set();
	pid_t front = getpid(), engine;
	int status;

	/* From here on they wait for whom they are for. */
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* Were it ignored, the kernel would forget how the engine ended. */
	signal(SIGCHLD, SIG_DFL);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	engine = signal_fd < 0 ? -1 : fork();
	if (engine < 0) {
		*result = log_errno(-errno, "dump: starting its process: %m");
		return true;
	}
	if (!engine) {
		become_engine(front);
		return false;
	}
	give_up_what_is_not_needed();
	*result = wait_for(engine, signal_fd, &status);
	if (!*result)
		*result = result_of(engine, status);
	return true;
}
