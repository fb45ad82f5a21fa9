/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When the thread that traces exits, its tracees run on where they are: from
 * the stop at the entry of a system call, from the one at its exit, and inside
 * of a call that waits, which is not interrupted. No signal comes of it.
 */
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "kernel-test.h"

enum stage { AT_ENTRY, AT_EXIT, IN_CALL, N_STAGES };

struct shared {
	volatile int go;
	volatile int signals;
};
static struct shared *shared;

struct job {
	pid_t pid;
	enum stage stage;
	int pipe_fd; /* what the tracee waits for, in IN_CALL */
};

static void on_signal(int sig)
{
	(void)sig;
	shared->signals++;
}

/* getppid, again and again; then one byte of a pipe. Exits with 0 when all was
 * as it should be. */
static void be_tracee(int pipe_fd)
{
	pid_t parent = getppid();
	char byte;

	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, on_signal);
	while (!shared->go)
		if (syscall(SYS_getppid) != parent)
			_exit(2);
	if (syscall(SYS_read, pipe_fd, &byte, 1) != 1)
		_exit(3);
	_exit(shared->signals ? 4 : 0);
}

static void *trace(void *data)
{
	const struct job *job = data;
	pid_t pid = job->pid;

	seize_and_stop(pid, 0);
	need_ok(ptrace_cont_to_syscall(pid, 0));
	wait_stop(pid, PTRACE_STOP_SYSCALL);
	if (job->stage == AT_EXIT) {
		need_ok(ptrace_cont_to_syscall(pid, 0));
		wait_stop(pid, PTRACE_STOP_SYSCALL);
	}
	if (job->stage == IN_CALL) {
		struct ptrace_call call;

		shared->go = 1;
		do {
			need_ok(ptrace_cont_to_syscall(pid, 0));
			wait_stop(pid, PTRACE_STOP_SYSCALL);
			need_ok(ptrace_get_call(pid, &call));
		} while (!call.is_entry || call.nr != SYS_read);
		need_ok(ptrace_cont_to_syscall(pid, 0));
		wait_until_in(pid, SYS_read);
	}
	return NULL;
}

int main(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	need(shared != MAP_FAILED);
	for (int stage = 0; stage < N_STAGES; stage++) {
		struct job job = { .stage = (enum stage)stage };
		pthread_t thread;
		int fds[2];

		*shared = (struct shared){ 0 };
		need(!pipe(fds));
		job.pid = fork_child();
		if (!job.pid)
			be_tracee(fds[0]);
		need(!pthread_create(&thread, NULL, trace, &job));
		need(!pthread_join(thread, NULL));
		usleep(20000);
		shared->go = 1;
		usleep(20000);
		need(write(fds[1], "", 1) == 1);
		if (reap(job.pid))
			fail("stage %d: the tracee noticed", stage);
		close(fds[0]);
		close(fds[1]);
	}
	return 0;
}
