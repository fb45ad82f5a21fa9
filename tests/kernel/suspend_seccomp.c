/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PTRACE_O_SUSPEND_SECCOMP: a held thread may make calls that its filter kills
 * for, and no longer when it is let go. The filter looks after the stop at the
 * entry, so it sees the number that the tracer put there.
 *
 * The kernel grants that to who may administer it and has no filter himself,
 * which a tracer can find out with a child of its own.
 */
#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "kernel-test.h"

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

static void install_filter(struct sock_filter *filter, unsigned short len)
{
	struct sock_fprog program = { len, filter };

	need(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	need(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void child_main(int wait_fd)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	char c;

	install_filter(filter, ARRAY_SIZE(filter));
	need(read(wait_fd, &c, 1) == 1);
	_exit((int)syscall(SYS_getppid)); /* must kill */
}

static void ask_with_a_filter(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};

	install_filter(filter, ARRAY_SIZE(filter));
	need(ptrace_can_suspend_seccomp() == -EPERM);
}

static void ask_without_capabilities(void)
{
	need(!setresuid(65534, 65534, 65534));
	need(ptrace_can_suspend_seccomp() == -EPERM);
}

static void in_a_child(void (*ask)(void))
{
	pid_t pid = fork_child();
	int status;

	if (!pid) {
		ask();
		_exit(0);
	}
	need(waitpid(pid, &status, 0) == pid);
	need(WIFEXITED(status) && !WEXITSTATUS(status));
}

int main(void)
{
	struct user_regs_struct regs, entry;
	int fds[2], status, r;
	pid_t pid;

	need(!pipe(fds));
	pid = fork_child();
	if (!pid)
		child_main(fds[0]);
	wait_until_in(pid, SYS_read);
	r = ptrace_seize(pid, PTRACE_O_SUSPEND_SECCOMP);
	if (r)
		skip("PTRACE_O_SUSPEND_SECCOMP: %s", strerror(-r));
	need_ok(ptrace_can_suspend_seccomp());
	in_a_child(ask_with_a_filter);
	in_a_child(ask_without_capabilities);
	need_ok(ptrace_interrupt(pid));
	wait_stop(pid, PTRACE_STOP_EVENT);
	need_ok(ptrace_get_regs(pid, &regs));
	need(run_syscall(pid, &regs, SYS_getppid, 0, 0) == getpid());

	/* The same, disguised as getpid until its entry. */
	entry = regs;
	entry.rip -= 2;
	entry.rax = SYS_getpid;
	entry.orig_rax = (uint64_t)-1;
	need_ok(ptrace_set_regs(pid, &entry));
	need_ok(ptrace_cont_to_syscall(pid, 0));
	wait_stop(pid, PTRACE_STOP_SYSCALL);
	need_ok(ptrace_get_regs(pid, &entry));
	entry.orig_rax = SYS_getppid;
	need_ok(ptrace_set_regs(pid, &entry));
	need_ok(ptrace_cont_to_syscall(pid, 0));
	wait_stop(pid, PTRACE_STOP_SYSCALL);
	need_ok(ptrace_get_regs(pid, &entry));
	need((pid_t)entry.rax == getpid());

	move_to_event(pid);
	need_ok(ptrace_set_regs(pid, &regs));
	need_ok(ptrace_detach(pid, 0));
	need(write(fds[1], "", 1) == 1);
	need(waitpid(pid, &status, 0) == pid);
	need(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
	return 0;
}
