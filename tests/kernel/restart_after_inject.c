/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread that waits in a system call is stopped, made to run another one, put
 * back in an event stop and let go: the kernel restarts its call, also one that
 * needs the restart block (a sleep goes on for what is left of it), and user
 * mode sees nothing.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#include "kernel-test.h"

#define WAIT_MS	  1000
#define INJECT_MS 500

static const struct timespec wait_time = { .tv_sec = WAIT_MS / 1000 };
static int empty_pipe[2];
static int report_pipe[2]; /* when the child was done */

static int wait_nanosleep(void)
{
	return nanosleep(&wait_time, NULL);
}

static int wait_poll(void)
{
	return (int)syscall(SYS_poll, NULL, 0, WAIT_MS);
}

static int wait_ppoll(void)
{
	return ppoll(NULL, 0, &wait_time, NULL);
}

static int wait_futex(void)
{
	uint32_t word = 0;

	syscall(SYS_futex, &word, FUTEX_WAIT, 0, &wait_time, NULL, 0);
	return errno == ETIMEDOUT ? 0 : -1;
}

static int wait_read(void)
{
	char c;

	return read(empty_pipe[0], &c, 1) == 1 ? 0 : -1;
}

static int wait_accept(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(addr);
	int sock = socket(AF_UNIX, SOCK_STREAM, 0);

	need(!bind(sock, (void *)&addr, sizeof(addr.sun_family)));
	need(!listen(sock, 1));
	need(!getsockname(sock, (void *)&addr, &len));
	if (!fork_child()) {
		int client = socket(AF_UNIX, SOCK_STREAM, 0);

		char c;

		/* When the test says so. */
		need(read(empty_pipe[0], &c, 1) == 1);
		need(!connect(client, (void *)&addr, len));
		_exit(0);
	}
	return accept(sock, NULL, NULL) < 0 ? -1 : 0;
}

static void child_main(int (*wait)(void))
{
	uint64_t done;

	if (wait())
		fail("failed: %s", strerror(errno));
	done = now_ns();
	need(write(report_pipe[1], &done, sizeof(done)) == sizeof(done));
	_exit(0);
}

static void inject(pid_t pid, long nr)
{
	struct user_regs_struct regs;

	seize_and_stop(pid, 0);
	need_ok(ptrace_get_regs(pid, &regs));
	need((long)regs.orig_rax == nr);
	need((long)regs.rax <= -512 && (long)regs.rax >= -516);
	need(run_syscall(pid, &regs, SYS_getpid, 0, 0) == pid);
	move_to_event(pid);
	need_ok(ptrace_set_regs(pid, &regs));
	need_ok(ptrace_detach(pid, 0));
}

/* A call that is `timed` must not start its time over. */
static void check(int (*wait)(void), long nr, bool timed)
{
	uint64_t start = now_ns(), injected, done;
	pid_t pid;

	need(!pipe(empty_pipe) && !pipe(report_pipe));
	pid = fork_child();
	if (!pid)
		child_main(wait);
	wait_until_in(pid, nr);
	if (timed)
		usleep(INJECT_MS * 1000);
	injected = now_ns();
	inject(pid, nr);
	if (!timed)
		need(write(empty_pipe[1], "", 1) == 1);
	if (reap(pid))
		fail("system call %ld", nr);
	need(read(report_pipe[0], &done, sizeof(done)) == sizeof(done));
	if (timed && done < start + WAIT_MS * 1000000ull)
		fail("system call %ld ended too early", nr);
	if (timed && done >= injected + WAIT_MS * 1000000ull)
		fail("system call %ld started over", nr);
	for (unsigned i = 0; i < 2; i++) {
		close(empty_pipe[i]);
		close(report_pipe[i]);
	}
}

int main(void)
{
	check(wait_nanosleep, SYS_clock_nanosleep, true);
	check(wait_poll, SYS_poll, true);
	check(wait_ppoll, SYS_ppoll, true);
	check(wait_futex, SYS_futex, true);
	check(wait_read, SYS_read, false);
	check(wait_accept, SYS_accept, false);
	return 0;
}
