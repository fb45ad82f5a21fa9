/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * For programs that show one behaviour of the kernel: exit 0 when it is there,
 * 1 when it is not, 77 when this host cannot tell.
 */

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/ptrace.h"

/* On a busy host. */
#define STOP_NS 10000000000

#define fail(fmt, ...)                                        \
	do {                                                  \
		fprintf(stderr, "%s:%d: " fmt "\n", __FILE__, \
			__LINE__ __VA_OPT__(, ) __VA_ARGS__); \
		exit(1);                                      \
	} while (0)

#define skip(fmt, ...)                                                    \
	do {                                                              \
		fprintf(stderr,                                           \
			"skipped: " fmt "\n" __VA_OPT__(, ) __VA_ARGS__); \
		exit(77);                                                 \
	} while (0)

#define need(cond)                                                       \
	do {                                                             \
		if (!(cond))                                             \
			fail("not so: %s (%s)", #cond, strerror(errno)); \
	} while (0)

/* A wrapper of sys/ that must return 0. */
#define need_ok(call)                                                \
	do {                                                         \
		int need_ok_r = (call);                              \
		if (need_ok_r)                                       \
			fail("%s: %s", #call, strerror(-need_ok_r)); \
	} while (0)

/* A child that dies with its parent; 0 in the child. */
static inline pid_t fork_child(void)
{
	pid_t pid = fork();

	need(pid >= 0);
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* The exit code of a child, which must exit by itself. */
static inline int reap(pid_t pid)
{
	int status;

	need(waitpid(pid, &status, __WALL) == pid);
	if (!WIFEXITED(status))
		fail("child ended with status %#x", status);
	return WEXITSTATUS(status);
}

/* Waits until it is asleep in system call `nr`. */
static inline void wait_until_in(pid_t pid, long nr)
{
	uint64_t deadline = now_ns() + STOP_NS;
	long now = -1;

	while (now_ns() < deadline) {
		char path[32];
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
		file = fopen(path, "r");
		if (!file)
			skip("%s: %s", path, strerror(errno));
		if (fscanf(file, "%ld", &now) != 1)
			now = -1;
		fclose(file);
		if (now == nr)
			return;
		usleep(1000);
	}
	fail("child is in system call %ld, not %ld", now, nr);
}

static inline void wait_stop(pid_t pid, enum ptrace_stop_kind kind)
{
	struct ptrace_stop stop;

	need_ok(ptrace_wait(pid, now_ns() + STOP_NS, &stop));
	if (stop.kind != kind)
		fail("stop of kind %d (status %#x), not %d", (int)stop.kind,
		     stop.status, (int)kind);
}

/* Seizes it and brings it to an event stop; skips where that is forbidden. */
static inline void seize_and_stop(pid_t pid, unsigned long options)
{
	int r = ptrace_seize(pid, options);

	if (r == -EPERM)
		skip("ptrace is not permitted");
	need_ok(r);
	need_ok(ptrace_interrupt(pid));
	wait_stop(pid, PTRACE_STOP_EVENT);
}

/*
 * Runs a system call on the `syscall` instruction before `rip` and leaves the
 * thread behind it, in the stop at its exit.
 */
static inline long run_syscall(pid_t pid, const struct user_regs_struct *found,
			       long nr, uint64_t arg0, uint64_t arg1)
{
	struct user_regs_struct regs = *found;

	regs.rip -= 2;
	regs.rax = (uint64_t)nr;
	regs.orig_rax = (uint64_t)-1;
	regs.rdi = arg0;
	regs.rsi = arg1;
	need_ok(ptrace_set_regs(pid, &regs));
	need_ok(ptrace_cont_to_syscall(pid, 0));
	wait_stop(pid, PTRACE_STOP_SYSCALL);
	need_ok(ptrace_cont_to_syscall(pid, 0));
	wait_stop(pid, PTRACE_STOP_SYSCALL);
	need_ok(ptrace_get_regs(pid, &regs));
	return (long)regs.rax;
}

/* From there into get_signal(), with no user code between. */
static inline void move_to_event(pid_t pid)
{
	need_ok(ptrace_interrupt(pid));
	need_ok(ptrace_cont(pid, 0));
	wait_stop(pid, PTRACE_STOP_EVENT);
}
