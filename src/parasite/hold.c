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
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/procsig.h"
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

struct layout {
	struct arch_gadgets gadgets;
	struct range stack;
};

#define refuse(...) (log_error(__VA_ARGS__), RESULT_UNSUPPORTED)

static int refuse_traced(pid_t pid, pid_t tracer)
{
	_cleanup_close_ int proc_fd = procfs_open(tracer);
	struct proc_status status;

	if (proc_fd < 0 || procfs_read_status(proc_fd, &status))
		status.name[0] = '\0';
	return refuse("pid %d: is traced by pid %d (%s)", pid, tracer,
		      status.name);
}

static int check_status(pid_t pid, const struct proc_status *status)
{
	if (status->tracer_pid)
		return refuse_traced(pid, status->tracer_pid);
	if (status->kernel_thread)
		return refuse("pid %d: is a kernel thread", pid);
	if (status->state == 'Z' || status->state == 'X')
		return refuse("pid %d: its main thread has exited", pid);
	if (status->state == 'T' || status->state == 't')
		return refuse("pid %d: is stopped; SIGCONT would change that",
			      pid);
	return 0;
}

/*
 * The stack must be the one that the kernel made: below the stack pointer of
 * another, of a signal handler's, a coroutine's or a goroutine's, there may be
 * anything.
 */
static int find_layout(pid_t pid, int proc_fd, struct layout *layout)
{
	_cleanup_(proc_maps_deinit) struct proc_maps maps = { 0 };
	int err;

	err = procfs_read_maps(proc_fd, &maps);
	if (err)
		return err == -ESRCH ? err
				     : log_errno(err, "pid %d: maps: %m", pid);
	layout->stack = (struct range){ 0 };
	for (size_t i = 0; i < maps.n_maps; i++)
		if (!strcmp(maps.maps[i].path, "[stack]"))
			layout->stack = maps.maps[i].range;
	if (!layout->stack.end)
		return refuse("pid %d: has no stack mapping", pid);
	err = arch_find_gadgets(pid, &maps, &layout->gadgets);
	if (err == -ENOENT)
		return refuse("pid %d: maps no code that calls rt_sigreturn, "
			      "its way back",
			      pid);
	if (err)
		return log_errno(err, "pid %d: reading its code: %m", pid);
	if (!layout->gadgets.store)
		log_debug("pid %d: maps no code to store a result with", pid);
	return 0;
}

static int seize(pid_t pid, const struct proc_status *status)
{
	int err;

	err = ptrace_seize(pid, status->seccomp ? PTRACE_O_SUSPEND_SECCOMP : 0);
	if (!err || err == -ESRCH)
		return err;
	if (status->seccomp)
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

/* Brings it to a stop of its own, handing on signals. */
static int stop_once(struct remote *r, uint64_t deadline)
{
	struct ptrace_stop stop;
	int err;

	err = ptrace_interrupt(r->pid);
	while (!err) {
		err = ptrace_wait(r->pid, deadline, &stop);
		if (err)
			break;
		switch (stop.kind) {
		case PTRACE_STOP_GONE:
			r->state = REMOTE_FREE;
			return -ESRCH;
		case PTRACE_STOP_EVENT:
			r->state = REMOTE_EVENT;
			return 0;
		case PTRACE_STOP_GROUP:
			r->state = REMOTE_EVENT;
			return refuse("pid %d: is stopped by signal %d", r->pid,
				      stop.sig);
		case PTRACE_STOP_SIGNAL:
			err = ptrace_cont(r->pid, stop.sig);
			break;
		default:
			err = ptrace_cont(r->pid, 0);
		}
	}
	if (err == -ESRCH)
		r->state = REMOTE_FREE;
	else if (err == -ETIMEDOUT)
		log_error("pid %d: its main thread does not stop; it may be in "
			  "uninterruptible sleep",
			  r->pid);
	else
		log_errno(err, "pid %d: stopping it: %m", r->pid);
	return err;
}

/* 1 where the thread may be held, 0 where it may be a moment later. */
static int is_good_place(struct remote *r, const struct range *stack)
{
	int busy;

	if (r->regs.rsp <= stack->start || r->regs.rsp > stack->end)
		return 0;
	busy = arch_in_rseq(r->pid, &r->regs);
	return busy < 0 ? busy : !busy;
}

/* Lets it run for a while. A signal would stop it, and where that is handed on
 * only with the next interrupt, it is found in its handler every time. */
static int run_on(struct remote *r)
{
	uint64_t deadline = now_ns() + STOP_GAP_NS;
	struct ptrace_stop stop = { 0 };
	int err;

	do {
		err = ptrace_cont(r->pid, stop.sig);
		if (err)
			return err;
		r->state = REMOTE_RUNNING;
		err = ptrace_wait(r->pid, deadline, &stop);
		if (!err && stop.kind == PTRACE_STOP_GONE) {
			r->state = REMOTE_FREE;
			return -ESRCH;
		}
		if (!err && stop.kind == PTRACE_STOP_GROUP)
			stop.sig = 0;
	} while (!err);
	return err == -ETIMEDOUT ? 0 : err;
}

static int stop_in_good_place(struct remote *r, const struct range *stack)
{
	uint64_t deadline = now_ns() + STOP_TIMEOUT_NS;

	for (unsigned i = 0; i < STOP_TRIES; i++) {
		int err;

		err = stop_once(r, deadline);
		if (err)
			return err;
		err = ptrace_get_regs(r->pid, &r->regs);
		if (err == -ENOEXEC)
			return refuse("pid %d: runs 32-bit code", r->pid);
		if (!err)
			err = is_good_place(r, stack);
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
	return refuse("pid %d: its main thread stays away from its own stack",
		      r->pid);
}

static int check_thread(struct remote *r)
{
	int has;

	has = ptrace_has_shadow_stack(r->pid);
	if (has > 0)
		return refuse("pid %d: has a shadow stack", r->pid);
	if (!has)
		has = ptrace_has_syscall_dispatch(r->pid);
	if (has > 0)
		return refuse("pid %d: dispatches system calls to itself",
			      r->pid);
	return has;
}

/*
 * From here on the thread leads home: first the registers, so that no state in
 * between has signals blocked and nobody to unblock them.
 */
static int park(struct remote *r, const struct layout *layout)
{
	static const uint64_t no_args[6];
	struct user_regs_struct regs = r->regs;
	struct procsig sig = { 0 };
	int err;

	err = ptrace_get_sigmask(r->pid, &r->sigmask);
	if (!err)
		err = procsig_read(r->proc_fd, r->pid, &sig);
	r->blocked = sig.blocked;
	if (!err)
		err = wayback_init(&r->wayback, r->pid, layout->stack,
				   &layout->gadgets, &r->regs, r->sigmask);
	if (err == -ENOSPC || err == -EFAULT)
		return refuse("pid %d: has no room left on its stack", r->pid);
	if (!err) {
		/* munmap(0, 0), if ever it runs. */
		arch_set_call(&regs, &layout->gadgets,
			      wayback_sp(&r->wayback, 0), SYS_munmap, no_args);
		err = ptrace_set_regs(r->pid, &regs);
	}
	if (!err)
		err = ptrace_set_sigmask(r->pid, UINT64_MAX);
	return err ? log_errno(err, "pid %d: preparing its way back: %m",
			       r->pid)
		   : 0;
}

static int hold(struct remote *r, int pidfd, const struct layout *layout)
{
	int err;

	err = stop_in_good_place(r, &layout->stack);
	if (err)
		return err;
	/* Held, its pid cannot be recycled: is it who was meant? */
	if (!pidfd_is_alive(pidfd))
		return -ESRCH;
	err = check_thread(r);
	return err ? err : park(r, layout);
}

static int hold_checked(struct remote *r, pid_t pid, int proc_fd, int pidfd)
{
	struct proc_status status;
	struct layout layout;
	int err, left;

	err = procfs_read_status(proc_fd, &status);
	if (err)
		return err == -ESRCH
			       ? err
			       : log_errno(err, "pid %d: status: %m", pid);
	err = check_status(pid, &status);
	if (!err)
		err = find_layout(pid, proc_fd, &layout);
	if (!err)
		err = seize(pid, &status);
	if (err)
		return err;

	r->state = REMOTE_RUNNING;
	err = hold(r, pidfd, &layout);
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

	*r = (struct remote){ .pid = pid,
			      .proc_fd = proc_fd,
			      .state = REMOTE_FREE };
	err = hold_checked(r, pid, proc_fd, pidfd);
	if (err == -ESRCH)
		log_error("pid %d: is gone", pid);
	return err;
}
