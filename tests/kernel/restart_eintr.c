/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * epoll_wait(2) fails with EINTR when its thread is merely stopped. With that
 * replaced by the kernel's own ERESTARTNOHAND in an event stop, it is restarted
 * if no handler runs, and fails as it should if one does.
 */
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "kernel-test.h"

#define ERESTARTNOHAND 514

static void on_signal(int sig)
{
	(void)sig;
}

/* Exits with the errno of the call, 0 when the pipe ended it. */
static int child_main(int pipe_fd)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct epoll_event event = { .events = EPOLLIN };
	int fd = epoll_create1(0);

	sigaction(SIGUSR1, &action, NULL);
	need(!epoll_ctl(fd, EPOLL_CTL_ADD, pipe_fd, &event));
	return syscall(SYS_epoll_wait, fd, &event, 1, -1) == 1 ? 0 : errno;
}

static int run(bool replace, bool with_signal)
{
	struct user_regs_struct regs;
	int fds[2];
	pid_t pid;

	need(!pipe(fds));
	pid = fork_child();
	if (!pid)
		_exit(child_main(fds[0]));
	wait_until_in(pid, SYS_epoll_wait);
	seize_and_stop(pid, 0);
	need_ok(ptrace_get_regs(pid, &regs));
	need((long)regs.rax == -EINTR);
	if (replace) {
		regs.rax = (uint64_t)-ERESTARTNOHAND;
		need_ok(ptrace_set_regs(pid, &regs));
	}
	if (with_signal)
		kill(pid, SIGUSR1);
	need_ok(ptrace_detach(pid, 0));
	/* A restarted call is ended by this. */
	usleep(50000);
	need(write(fds[1], "", 1) == 1);
	return reap(pid);
}

int main(void)
{
	need(run(false, false) == EINTR);
	need(run(true, false) == 0);
	need(run(true, true) == EINTR);
	return 0;
}
