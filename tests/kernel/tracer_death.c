/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When a tracer is killed, its tracee runs on from the registers that it has:
 * out of an event stop, out of the entry of a system call, which is then made
 * with the number in the register, and out of the exit of one.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "kernel-test.h"

enum stage { AT_EVENT, AT_ENTRY, AT_EXIT, N_STAGES };

/* Shared with both children. */
struct shared {
	volatile int held;
	volatile int landed;
};
static struct shared *shared;
static char landing_stack[65536] __attribute__((aligned(16)));

static void land(void)
{
	shared->landed = 1;
	_exit(0);
}

static void trace(pid_t pid, enum stage stage)
{
	struct user_regs_struct regs;

	seize_and_stop(pid, 0);
	need_ok(ptrace_get_regs(pid, &regs));
	regs.orig_rax = (uint64_t)-1;
	if (stage == AT_EVENT) {
		regs.rip = (uint64_t)(uintptr_t)land;
		regs.rsp = (uint64_t)(uintptr_t)(landing_stack + 65536 - 8);
		need_ok(ptrace_set_regs(pid, &regs));
	} else {
		/* exit(0), disguised as getpid until its entry. */
		regs.rip -= 2;
		regs.rax = SYS_getpid;
		regs.rdi = 0;
		need_ok(ptrace_set_regs(pid, &regs));
		need_ok(ptrace_cont_to_syscall(pid, 0));
		wait_stop(pid, PTRACE_STOP_SYSCALL);
		need_ok(ptrace_get_regs(pid, &regs));
		if (stage == AT_ENTRY)
			regs.orig_rax = SYS_exit_group;
		need_ok(ptrace_set_regs(pid, &regs));
	}
	if (stage == AT_EXIT) {
		need_ok(ptrace_cont_to_syscall(pid, 0));
		wait_stop(pid, PTRACE_STOP_SYSCALL);
		need_ok(ptrace_get_regs(pid, &regs));
		need((pid_t)regs.rax == pid);
		regs.rip = (uint64_t)(uintptr_t)land;
		regs.rsp = (uint64_t)(uintptr_t)(landing_stack + 65536 - 8);
		need_ok(ptrace_set_regs(pid, &regs));
	}
	shared->held = 1;
	pause();
}

int main(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(shared != MAP_FAILED);
	for (int stage = 0; stage < N_STAGES; stage++) {
		pid_t victim, tracer;
		int status;

		*shared = (struct shared){ 0 };
		victim = fork_child();
		if (!victim) {
			syscall(SYS_pause);
			_exit(2);
		}
		wait_until_in(victim, SYS_pause);
		tracer = fork_child();
		if (!tracer)
			trace(victim, (enum stage)stage);
		while (!shared->held)
			if (waitpid(tracer, &status, WNOHANG) == tracer)
				return WEXITSTATUS(status);
		kill(tracer, SIGKILL);
		waitpid(tracer, NULL, 0);
		need(reap(victim) == 0);
		need(shared->landed == (stage != AT_ENTRY));
	}
	return 0;
}
