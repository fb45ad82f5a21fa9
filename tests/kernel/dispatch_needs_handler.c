/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Syscall user dispatch (PR_SET_SYSCALL_USER_DISPATCH) turns each call outside
 * of a range of code into a SIGSYS of its own thread, and does not make it. So
 * calls that unmap are not held by it: the target would need a handler of ours
 * that makes them, in place of any that it has; without one it dies.
 */
#include <sys/syscall.h>
#include <ucontext.h>

#include "kernel-test.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF	     0
#define PR_SYS_DISPATCH_ON	     1
#endif

static volatile char selector; /* SYSCALL_DISPATCH_FILTER_ALLOW: 0 */
static volatile long asked = -1;

static void handle(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	(void)sig;
	selector = 0;
	asked = info->si_syscall;
	u->uc_mcontext.gregs[REG_RAX] = 4711;
}

static void dispatch(void)
{
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0,
		  &selector))
		skip("PR_SET_SYSCALL_USER_DISPATCH: %s", strerror(errno));
}

static void with_handler(void)
{
	struct sigaction action = { .sa_sigaction = handle,
				    .sa_flags = SA_SIGINFO };

	need(!sigaction(SIGSYS, &action, NULL));
	dispatch();
	selector = 1;
	need(syscall(SYS_getppid) == 4711);
	need(asked == SYS_getppid);
	_exit(0);
}

static void without(void)
{
	dispatch();
	selector = 1;
	syscall(SYS_getppid);
	_exit(0);
}

int main(void)
{
	int status, r;
	pid_t pid;

	pid = fork_child();
	if (!pid)
		with_handler();
	r = reap(pid);
	if (r)
		return r;

	pid = fork_child();
	if (!pid)
		without();
	need(waitpid(pid, &status, 0) == pid);
	need(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
	return 0;
}
