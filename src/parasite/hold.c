/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * remote_hold(): finds out whether a thread may be held, stops it where that
 * can be undone, and prepares its way back. Every refusal leaves it as it was.
 */
#include "parasite/remote.h"

#include <errno.h>
#include <linux/ptrace.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "parasite/candidate.h"
#include "parasite/place.h"
#include "sys/pidfd.h"
#include "sys/procsig.h"
#include "sys/procwait.h"
#include "target/restart.h"

/* A thread in uninterruptible sleep may take any time; the user may not. */
#define STOP_TIMEOUT_NS 2000000000

/* How often a thread is stopped in the hope to find it on its own stack and
 * outside of a restartable sequence, and for how long it runs between. */
#define STOP_TRIES  100
#define STOP_GAP_NS 1000000

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

#define refuse(...) (log_error(__VA_ARGS__), RESULT_UNSUPPORTED)

static int seize(const struct candidate *candidate)
{
	pid_t pid = candidate->pid;
	int err;

	err = INJECT("infect-seize");
	if (!err)
		err = ptrace_seize(candidate->tid,
				   candidate->status.seccomp
					   ? PTRACE_O_SUSPEND_SECCOMP
					   : 0);
	if (!err || err == -ESRCH)
		return err;
	if (candidate->status.seccomp)
		return refuse("pid %d: PTRACE_SEIZE with its seccomp filter "
			      "suspended: %s (CAP_SYS_ADMIN is needed, and no "
			      "filter on snapuffd itself)",
			      pid, strerror(-err));
	if (err == -EPERM)
		return refuse("pid %d: PTRACE_SEIZE: not permitted "
			      "(CAP_SYS_PTRACE is needed)",
			      pid);
	return log_errno(err, "pid %d: PTRACE_SEIZE: %m", pid);
}

static void log_not_stopping(const struct remote *r)
{
	char text[128];

	procwait_describe(r->proc_fd, r->tid, text, sizeof(text));
	log_error("pid %d: its thread %d (%s) does not stop", r->pid, r->tid,
		  text);
}

/* Brings it to a stop of its own, handing on signals. */
static int stop_once(struct remote *r, uint64_t deadline)
{
	struct ptrace_stop stop;
	int err;

	err = INJECT("infect-stop") ?: ptrace_interrupt(r->tid);
	while (!err) {
		err = ptrace_wait(r->tid, deadline, &stop);
		if (err)
			break;
		switch (stop.kind) {
		case PTRACE_STOP_GONE:
			r->state = REMOTE_FREE;
			return -ESRCH;
		case PTRACE_STOP_EVENT:
			r->state = REMOTE_EVENT;
			return INJECT("infect-stop-done");
		case PTRACE_STOP_GROUP:
			r->state = REMOTE_EVENT;
			return refuse("pid %d: is stopped by signal %d", r->pid,
				      stop.sig);
		case PTRACE_STOP_SIGNAL:
			err = restart_pass_on(r->tid, stop.sig);
			break;
		default:
			err = ptrace_cont(r->tid, 0);
		}
	}
	if (err == -ESRCH)
		r->state = REMOTE_FREE;
	else if (err == -ETIMEDOUT)
		log_not_stopping(r);
	else
		log_errno(err, "pid %d: stopping it: %m", r->pid);
	return err;
}

/* Where it goes home from. */
struct post {
	uint64_t remote_addr;
	size_t len;
};

/* 1 where the thread may be held, 0 where it may be a moment later. */
static int is_good_place(struct remote *r, struct candidate *candidate,
			 struct post *post)
{
	int busy, err;

	busy = arch_in_rseq(r->tid, &r->regs);
	if (busy)
		return busy < 0 ? busy : 0;
	err = wayback_measure(r->tid, &post->len);
	return err ? err
		   : place_find(candidate, r->proc_fd, &r->regs, post->len,
				&post->remote_addr);
}

/* Lets it run for a while. A signal would stop it, and where that is handed on
 * only with the next interrupt, it is found in its handler every time. */
static int run_on(struct remote *r)
{
	uint64_t deadline = now_ns() + STOP_GAP_NS;
	struct ptrace_stop stop = { 0 };
	int err;

	do {
		if (stop.kind == PTRACE_STOP_SIGNAL)
			restart_mend(r->tid);
		err = ptrace_cont(r->tid, stop.sig);
		if (err)
			return err;
		r->state = REMOTE_RUNNING;
		err = ptrace_wait(r->tid, deadline, &stop);
		if (!err && stop.kind == PTRACE_STOP_GONE) {
			r->state = REMOTE_FREE;
			return -ESRCH;
		}
		if (!err && stop.kind == PTRACE_STOP_GROUP)
			stop.sig = 0;
	} while (!err);
	return err == -ETIMEDOUT ? 0 : err;
}

static int refuse_place(const struct candidate *candidate)
{
	if (candidate->tid != candidate->pid)
		return refuse("pid %d: its main thread has exited, and there "
			      "is no unused room on that thread's stack",
			      candidate->pid);
	return refuse("pid %d: its main thread stays away from its own stack, "
		      "or has no room left there, and no part of that was "
		      "never used",
		      candidate->pid);
}

static int stop_in_good_place(struct remote *r, struct candidate *candidate,
			      struct post *post)
{
	uint64_t deadline = now_ns() + STOP_TIMEOUT_NS;

	for (unsigned i = 0; i < STOP_TRIES; i++) {
		int err;

		err = stop_once(r, deadline);
		if (err)
			return err;
		err = ptrace_get_regs(r->tid, &r->regs);
		if (err == -ENOEXEC)
			return refuse("pid %d: runs 32-bit code", r->pid);
		if (!err)
			err = candidate_refresh(candidate, r->proc_fd);
		if (err == RESULT_UNSUPPORTED)
			return err;
		if (!err)
			err = is_good_place(r, candidate, post);
		if (err > 0) {
			r->held_since_ns = now_ns();
			restart_eintr(&r->regs);
			return 0;
		}
		if (!err)
			err = run_on(r);
		if (err)
			return err == -ESRCH
				       ? err
				       : log_errno(err, "pid %d: ptrace: %m",
						   r->pid);
	}
	return refuse_place(candidate);
}

static int check_thread(struct remote *r)
{
	int has;

	has = ptrace_has_shadow_stack(r->tid);
	if (has > 0)
		return refuse("pid %d: has a shadow stack", r->pid);
	if (!has)
		has = ptrace_has_syscall_dispatch(r->tid);
	if (has > 0)
		return refuse("pid %d: dispatches system calls to itself",
			      r->pid);
	return has;
}

/*
 * From here on the thread leads home: first the registers, so that no state in
 * between has signals blocked and nobody to unblock them.
 */
static int park(struct remote *r, const struct candidate *candidate,
		const struct post *post)
{
	static const uint64_t no_args[6];
	struct user_regs_struct regs = r->regs;
	struct procsig sig = { 0 };
	int err;

	err = ptrace_get_sigmask(r->tid, &r->sigmask);
	if (!err)
		err = procsig_read(r->proc_fd, r->tid, &sig);
	r->blocked = sig.blocked;
	INJECT_INTO(err, "park-wayback");
	if (!err)
		err = wayback_init(&r->wayback, r->tid, post->remote_addr,
				   post->len, &candidate->gadgets, &r->regs,
				   r->sigmask);
	if (err == -EFAULT)
		return refuse("pid %d: has a stack that cannot be written",
			      r->pid);
	if (!err) {
		/* munmap(0, 0), if ever it runs. */
		arch_set_call(&regs, &candidate->gadgets,
			      wayback_sp(&r->wayback, 0), SYS_munmap, no_args);
		err = INJECT("park-regs") ?: ptrace_set_regs(r->tid, &regs);
	}
	INJECT_INTO(err, "park-mask");
	if (!err)
		err = ptrace_set_sigmask(r->tid, UINT64_MAX);
	INJECT_INTO(err, "park-done");
	return err ? log_errno(err, "pid %d: preparing its way back: %m",
			       r->pid)
		   : 0;
}

static int hold(struct remote *r, int pidfd, struct candidate *candidate)
{
	struct post post;
	int err;

	err = stop_in_good_place(r, candidate, &post);
	if (err)
		return err;
	/* Held, its pid cannot be recycled: is it who was meant? */
	if (!pidfd_is_alive(pidfd))
		return -ESRCH;
	err = INJECT("infect-check") ?: check_thread(r);
	return err ? err : park(r, candidate, &post);
}

static int hold_checked(struct remote *r, int pidfd)
{
	struct candidate candidate;
	int err, left;

	err = candidate_find(&candidate, r->pid, r->proc_fd);
	if (!err)
		err = seize(&candidate);
	if (err)
		return err;

	r->tid = candidate.tid;
	r->state = REMOTE_RUNNING;
	err = candidate_check_held(&candidate, r->proc_fd);
	if (!err)
		err = hold(r, pidfd, &candidate);
	if (!err)
		return 0;
	/* One that does not stop for us will not stop to be let go either. */
	left = err == -ETIMEDOUT ? 0 : remote_let_go(r);
	wayback_deinit(&r->wayback);
	return left == -ETIMEDOUT ? left : err;
}

int remote_hold(struct remote *r, pid_t pid, int proc_fd, int pidfd)
{
	int err;

	*r = (struct remote){
		.pid = pid, .tid = pid, .proc_fd = proc_fd, .state = REMOTE_FREE
	};
	err = hold_checked(r, pidfd);
	if (err == -ESRCH)
		log_error("pid %d: is gone", pid);
	return err;
}
