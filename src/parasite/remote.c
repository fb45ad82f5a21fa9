/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "parasite/remote.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/util.h"
#include "sys/procsig.h"
#include "sys/vmio.h"

/* No call that we make waits for anything, so this is a thread that is not
 * let run: a frozen cgroup, a host on its knees. */
#define CALL_TIMEOUT_NS 5000000000

#define STOP_TIMEOUT_NS 2000000000

/*
 * Every call begins as this one, which no seccomp filter forbids (malloc needs
 * it) and which fails; the number is replaced in the stop at its entry. With
 * the tracer dies the suspension of seccomp: a filter that kills for the real
 * call can then do so only if the thread, woken from that stop, has not yet
 * come to the filter.
 */
#define HARMLESS_CALL SYS_munmap

static const uint64_t harmless_args[6];

static uint64_t deadline_in(uint64_t ns)
{
	return now_ns() + ns;
}

static int gone(struct remote *r)
{
	r->state = REMOTE_FREE;
	return -ESRCH;
}

/* Lets the thread run on to its next system call stop, which must be `want`;
 * stops of other kinds on the way are none of our business. */
static int run_to_syscall(struct remote *r, enum ptrace_syscall_stop want)
{
	uint64_t deadline = deadline_in(CALL_TIMEOUT_NS);
	enum ptrace_syscall_stop at;
	struct ptrace_stop stop = { 0 };
	int err;

	do {
		int sig = stop.kind == PTRACE_STOP_SIGNAL ? stop.sig : 0;

		err = ptrace_cont_to_syscall(r->tid, sig);
		if (err)
			return err;
		r->state = REMOTE_RUNNING;
		err = ptrace_wait(r->tid, deadline, &stop);
		if (err)
			return err;
		if (stop.kind == PTRACE_STOP_GONE)
			return gone(r);
	} while (stop.kind != PTRACE_STOP_SYSCALL);

	r->state = REMOTE_ENTRY;
	err = ptrace_get_syscall_stop(r->tid, &at);
	if (err)
		return err;
	if (at == PTRACE_SYSCALL_EXIT)
		r->state = REMOTE_EXIT;
	return at == want ? 0 : -EPROTO;
}

/* One call on the gadget, from where the thread returns to `remote_sp`. */
static int run_call(struct remote *r, uint64_t remote_sp, uint64_t store_to,
		    bool disguise, long nr, const uint64_t args[6],
		    long *result)
{
	const struct arch_gadgets *gadgets = &r->wayback.gadgets;
	struct user_regs_struct regs = r->regs;
	int err;

	assert(r->state == REMOTE_EVENT || r->state == REMOTE_EXIT);
	arch_set_call(&regs, gadgets, remote_sp, disguise ? HARMLESS_CALL : nr,
		      disguise ? harmless_args : args);
	if (store_to)
		arch_set_store(&regs, gadgets, store_to);
	err = INJECT("call-prepare") ?: ptrace_set_regs(r->tid, &regs);
	INJECT_INTO(err, "call-enter");
	if (!err)
		err = run_to_syscall(r, PTRACE_SYSCALL_ENTRY);
	INJECT_INTO(err, "call-replace");
	if (!err && disguise) {
		err = ptrace_get_regs(r->tid, &regs);
		if (!err) {
			arch_replace_call(&regs, nr, args);
			err = ptrace_set_regs(r->tid, &regs);
		}
	}
	INJECT_INTO(err, "call-run");
	if (!err)
		err = run_to_syscall(r, PTRACE_SYSCALL_EXIT);
	if (err)
		return err;
	err = INJECT("call-result") ?: ptrace_get_regs(r->tid, &regs);
	r->is_adrift = err;
	if (!err)
		*result = (long)regs.rax;
	return err;
}

int remote_call(struct remote *r, long nr, const uint64_t args[6], long *result)
{
	return run_call(r, wayback_sp(&r->wayback, r->wayback.n_fds), 0, true,
			nr, args, result);
}

int remote_open_fd(struct remote *r, long nr, const uint64_t args[6], int *fd)
{
	uint64_t store_to;
	uint64_t sp = wayback_sp_storing(&r->wayback, &store_to);
	long result;
	int err;

	err = run_call(r, sp, store_to, true, nr, args, &result);
	if (err)
		return err;
	if (result < 0)
		return (int)result;
	err = INJECT("call-keep-fd")
		      ?: wayback_push_fd(&r->wayback, (int)result);
	r->is_adrift = err;
	if (!err)
		*fd = (int)result;
	return err;
}

int remote_receive_fd(struct remote *r, int sock, int *fd)
{
	struct {
		struct msghdr msg;
		struct iovec iov;
		uint64_t data;
	} args = { 0 };
	uint64_t remote_args = wayback_scratch(&r->wayback);
	uint64_t remote_fd = wayback_next_fd(&r->wayback);
	uint64_t sp = wayback_sp(&r->wayback, r->wayback.n_fds + 1);
	long result;
	int err;

	_Static_assert(sizeof(args) <= WAYBACK_SCRATCH, "fits");
	/* The kernel writes the number right where the way back needs it; the
	 * header before it spoils two registers that no close(2) reads. */
	args.msg.msg_control = (void *)(uintptr_t)(remote_fd - CMSG_LEN(0));
	args.msg.msg_controllen = CMSG_SPACE(sizeof(int));
	args.msg.msg_iov =
		(void *)(uintptr_t)(remote_args + sizeof(struct msghdr));
	args.msg.msg_iovlen = 1;
	args.iov.iov_base =
		(void *)(uintptr_t)(remote_args + sizeof(struct msghdr) +
				    sizeof(struct iovec));
	args.iov.iov_len = 1;
	err = vm_write(r->tid, remote_args, &args, sizeof(args));
	if (err)
		return err;

	err = run_call(r, sp, 0, true, SYS_recvmsg,
		       (uint64_t[6]){ (uint64_t)sock, remote_args,
				      MSG_DONTWAIT | MSG_CMSG_CLOEXEC },
		       &result);
	if (err)
		return err;
	if (result < 0)
		return (int)result;
	err = INJECT("call-read-fd")
		      ?: vm_read(r->tid, remote_fd, fd, sizeof(*fd));
	if (!err && *fd < 0)
		return -EMFILE;
	if (!err)
		err = wayback_push_fd(&r->wayback, *fd);
	r->is_adrift = err;
	return err;
}

int remote_close_fd(struct remote *r)
{
	struct wayback *w = &r->wayback;
	long result;
	int err;

	/* Closing is part of the way back, no filter may forbid it. */
	err = run_call(r, wayback_sp(w, w->n_fds - 1), 0, false, SYS_close,
		       (uint64_t[6]){ (uint64_t)w->fds[w->n_fds - 1] },
		       &result);
	return err ? err : wayback_pop_fd(w);
}

/* From a stop behind a system call into get_signal(), without a single
 * instruction of user mode between: only there the kernel looks whether a call
 * is to be restarted. */
static int move_to_event(struct remote *r)
{
	uint64_t deadline = deadline_in(CALL_TIMEOUT_NS);
	struct ptrace_stop stop = { 0 };
	int err;

	if (r->state == REMOTE_EVENT)
		return 0;
	err = ptrace_interrupt(r->tid);
	if (err)
		return err;
	do {
		int sig = stop.kind == PTRACE_STOP_SIGNAL ? stop.sig : 0;

		err = ptrace_cont(r->tid, sig);
		if (err)
			return err;
		r->state = REMOTE_RUNNING;
		err = ptrace_wait(r->tid, deadline, &stop);
		if (err)
			return err;
		if (stop.kind == PTRACE_STOP_GONE)
			return gone(r);
	} while (stop.kind != PTRACE_STOP_EVENT &&
		 stop.kind != PTRACE_STOP_GROUP);
	r->state = REMOTE_EVENT;
	return 0;
}

/*
 * Inside of ppoll(2) and its like the thread had a mask of its own, which is
 * lost: ptrace sets the one that user mode has, and the call sets its own when
 * it is restarted. A signal that came meanwhile and that only the call's mask
 * blocks must not end the call, as it would when the kernel restarts it. Made
 * again from its start the call is entered with the signal already handled.
 */
static int settle_mask(struct remote *r)
{
	struct procsig sig;
	int err;

	if (r->blocked == r->sigmask)
		return 0;
	err = procsig_read(r->proc_fd, r->tid, &sig);
	if (!err && !(sig.pending & ~r->blocked))
		arch_rewind_syscall(&r->regs);
	return err;
}

static int restore(struct remote *r)
{
	int err = 0;

	while (r->wayback.n_fds && !err)
		err = remote_close_fd(r);
	INJECT_INTO(err, "cure-stop");
	if (!err)
		err = move_to_event(r);
	if (!err)
		err = settle_mask(r);
	INJECT_INTO(err, "cure-mask");
	/* The mask first: up to here, the way back would restore both. */
	if (!err)
		err = ptrace_set_sigmask(r->tid, r->sigmask);
	INJECT_INTO(err, "cure-regs");
	if (!err)
		err = ptrace_set_regs(r->tid, &r->regs);
	INJECT_INTO(err, "cure-erase");
	if (!err)
		wayback_erase(&r->wayback);
	INJECT_INTO(err, "cure-detach");
	if (!err)
		err = ptrace_detach(r->tid, 0);
	if (!err)
		r->state = REMOTE_FREE;
	return err;
}

/* Detaches in whatever stop the thread is or can be brought to; it goes on
 * from the registers that it has. */
int remote_let_go(struct remote *r)
{
	struct ptrace_stop stop = { 0 };
	int sig, err;

	if (r->state == REMOTE_FREE)
		return 0;
	if (r->state == REMOTE_RUNNING) {
		err = ptrace_interrupt(r->tid);
		if (!err)
			err = ptrace_wait(r->tid, deadline_in(STOP_TIMEOUT_NS),
					  &stop);
		if (err == -ETIMEDOUT)
			return log_errno(err,
					 "pid %d: cannot be stopped to "
					 "let it go; the exit of this "
					 "process will",
					 r->pid);
		if (err || stop.kind == PTRACE_STOP_GONE)
			return gone(r);
	}
	r->state = REMOTE_FREE;
	sig = stop.kind == PTRACE_STOP_SIGNAL ? stop.sig : 0;
	return ptrace_detach(r->tid, sig);
}

int remote_release(struct remote *r)
{
	int err, left;

	if (r->state == REMOTE_FREE)
		return 0;
	err = r->state == REMOTE_RUNNING		 ? -ETIMEDOUT
	      : r->state == REMOTE_ENTRY || r->is_adrift ? -ECANCELED
							 : restore(r);
	if (err == -ESRCH)
		r->state = REMOTE_FREE;
	else if (err == -ECANCELED) /* by a failure that is told by others */
		log_debug("pid %d: goes home by its way back", r->pid);
	else if (err)
		log_errno(err, "pid %d: sent home by its way back: %m", r->pid);
	left = remote_let_go(r);
	wayback_deinit(&r->wayback);
	log_debug("pid %d: held for %.3f ms", r->pid,
		  (double)(now_ns() - r->held_since_ns) / 1e6);
	return left ? left : err;
}
