/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/confined.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "sys/sandbox.h"

/* Of a child: 0 and RESULT_* as they are, -errno behind them. */
#define EXIT_ERRNO 64

static int enter(const char *dir, const char *write_dir)
{
	const struct sandbox sandbox = { .read = dir, .write = write_dir };
	int r = sandbox_enter(&sandbox);

	if (!r)
		return 0;
	if (access(dir, F_OK) || r == -ENOTDIR)
		log_errno(r, "%s: cannot open the image: %m", dir);
	else
		log_errno(r, "%s: it cannot be read in a sandbox: %m", dir);
	return RESULT_FAILED;
}

int confine_to_image(const char *dir)
{
	return enter(dir, NULL);
}

/* What was logged needs no errno any more. */
static int exit_code(int r)
{
	if (r >= 0)
		return r;
	return log_had_error() || r < EXIT_ERRNO - 255 ? RESULT_FAILED
						       : EXIT_ERRNO - r;
}

int confined_start(struct confined *child, const char *dir,
		   const char *write_dir, int (*work)(void *), void *data)
{
	pid_t parent = getpid();
	int r;

	child->image = dir;
	fflush(stdout);
	child->pid = fork();
	if (child->pid < 0)
		return log_errno(-errno, "fork: %m");
	if (child->pid)
		return 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(RESULT_FAILED);
	r = enter(dir, write_dir);
	if (!r)
		r = work(data);
	_exit(exit_code(r));
}

int confined_wait(struct confined *child)
{
	int status;

	while (waitpid(child->pid, &status, 0) < 0) {
		if (errno != EINTR)
			return log_errno(-errno, "waitpid: %m");
		/* Who stops us may not know of the child. */
		if (interrupt_pending())
			kill(child->pid, SIGTERM);
	}
	if (WIFSIGNALED(status)) {
		log_error("%s: what reads it was ended by signal %d (%s)",
			  child->image, WTERMSIG(status),
			  strsignal(WTERMSIG(status)));
		return RESULT_FAILED;
	}
	status = WEXITSTATUS(status);
	return status > EXIT_ERRNO ? EXIT_ERRNO - status : status;
}

int confined_run(const char *dir, const char *write_dir, int (*work)(void *),
		 void *data)
{
	struct confined child;
	int r = confined_start(&child, dir, write_dir, work, data);

	return r ? r : confined_wait(&child);
}
