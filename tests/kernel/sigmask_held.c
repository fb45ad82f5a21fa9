/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PTRACE_SETSIGMASK keeps signals pending while a thread is held, they arrive
 * once its mask is back; and PTRACE_GETSIGMASK gives the mask of user mode, not
 * the one that sigsuspend(2) has put in its place.
 */
#include <sys/syscall.h>

#include "kernel-test.h"

static volatile sig_atomic_t n_signals;

static void on_signal(int sig)
{
	(void)sig;
	n_signals++;
}

static int child_main(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	sigset_t set;

	sigaction(SIGUSR1, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigsuspend(&set);
	return n_signals;
}

int main(void)
{
	const uint64_t usr1 = (uint64_t)1 << (SIGUSR1 - 1);
	struct user_regs_struct regs;
	pid_t pid = fork_child();
	uint64_t mask;

	if (!pid)
		_exit(child_main());
	wait_until_in(pid, SYS_rt_sigsuspend);
	seize_and_stop(pid, 0);
	need_ok(ptrace_get_regs(pid, &regs));
	need_ok(ptrace_get_sigmask(pid, &mask));
	need(mask == usr1);
	need_ok(ptrace_set_sigmask(pid, UINT64_MAX));
	kill(pid, SIGUSR1);
	need(run_syscall(pid, &regs, SYS_getpid, 0, 0) == pid);
	move_to_event(pid);
	need_ok(ptrace_set_sigmask(pid, mask));
	need_ok(ptrace_set_regs(pid, &regs));
	need_ok(ptrace_detach(pid, 0));
	need(reap(pid) == 1);
	return 0;
}
