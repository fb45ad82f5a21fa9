/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A seized process that is sent SIGSTOP can still be made to run system calls,
 * and stays stopped when it is let go, until SIGCONT.
 */
#include <sys/syscall.h>

#include "kernel-test.h"

int main(void)
{
	struct user_regs_struct regs;
	struct ptrace_stop stop;
	pid_t pid = fork_child();
	int status;

	if (!pid) {
		syscall(SYS_pause);
		_exit(1);
	}
	wait_until_in(pid, SYS_pause);
	seize_and_stop(pid, 0);
	need_ok(ptrace_get_regs(pid, &regs));
	kill(pid, SIGSTOP);
	need_ok(ptrace_cont(pid, 0));
	wait_stop(pid, PTRACE_STOP_SIGNAL);
	need_ok(ptrace_cont(pid, SIGSTOP));
	need_ok(ptrace_wait(pid, now_ns() + STOP_NS, &stop));
	need(stop.kind == PTRACE_STOP_GROUP && stop.sig == SIGSTOP);
	need_ok(ptrace_get_regs(pid, &regs));

	need(run_syscall(pid, &regs, SYS_getpid, 0, 0) == pid);
	need_ok(ptrace_interrupt(pid));
	need_ok(ptrace_cont(pid, 0));
	wait_stop(pid, PTRACE_STOP_GROUP);
	need_ok(ptrace_set_regs(pid, &regs));
	need_ok(ptrace_detach(pid, 0));

	need(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
	usleep(50000);
	need(waitpid(pid, &status, WNOHANG) == 0);
	kill(pid, SIGCONT);
	wait_until_in(pid, SYS_pause);
	kill(pid, SIGTERM);
	need(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
	return 0;
}
