/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * ptrace(2) on a thread that was seized: every function returns 0 or -errno
 * and logs nothing. -ESRCH: the thread is gone, or is not in a stop where the
 * request needs one. All calls on a tracee must come from the thread that
 * seized it. The exit of that thread detaches the tracee, which runs on with
 * whatever registers it then has.
 *
 * Never include <sys/ptrace.h>: with src/ in the include path it is this file.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* <sys/user.h> has a PAGE_SIZE of its own that would clash with base/util.h. */
#pragma push_macro("PAGE_SIZE")
#undef PAGE_SIZE
#include <sys/user.h>
#undef PAGE_SIZE
#pragma pop_macro("PAGE_SIZE")

/* What a wait found; the comment says what may be asked of the tracee. */
enum ptrace_stop_kind {
	PTRACE_STOP_EVENT,   /* in get_signal(): registers set here may make the
			      * kernel restart a system call */
	PTRACE_STOP_GROUP,   /* the same, and the process was sent SIGSTOP or
			      * its like: it stays stopped after a detach */
	PTRACE_STOP_SIGNAL,  /* `sig` is to be delivered: hand it on when
			      * resuming or detaching, or it is lost */
	PTRACE_STOP_SYSCALL, /* entry or exit of a system call */
	PTRACE_STOP_OTHER,   /* an event that was asked for by an option */
	PTRACE_STOP_GONE,    /* it has exited and is reaped: nothing */
};

struct ptrace_stop {
	enum ptrace_stop_kind kind;
	int sig;    /* SIGNAL, GROUP: which */
	int status; /* as wait(2) gives it */
};

enum ptrace_syscall_stop {
	PTRACE_SYSCALL_NONE,
	PTRACE_SYSCALL_ENTRY,
	PTRACE_SYSCALL_EXIT,
};

/* `options` are PTRACE_O_*; PTRACE_O_TRACESYSGOOD is always added. */
int ptrace_seize(pid_t tid, unsigned long options);
int ptrace_interrupt(pid_t tid);

/* The next stop, or -EAGAIN: there is none yet. */
int ptrace_look(pid_t tid, struct ptrace_stop *stop);

/* Between looks that found nothing, of which there were *n_looks in a row. */
void ptrace_wait_a_little(unsigned *n_looks);

/* The next stop, or -ETIMEDOUT at `deadline_ns` of CLOCK_MONOTONIC. */
int ptrace_wait(pid_t tid, uint64_t deadline_ns, struct ptrace_stop *stop);

/* Resume, delivering `sig` unless 0. */
int ptrace_cont(pid_t tid, int sig);
int ptrace_cont_to_syscall(pid_t tid, int sig);
int ptrace_detach(pid_t tid, int sig);

/* -ENOEXEC when the thread runs 32-bit code. */
int ptrace_get_regs(pid_t tid, struct user_regs_struct *regs);
int ptrace_set_regs(pid_t tid, const struct user_regs_struct *regs);

/* Bit n - 1 is signal n. The mask that is read is the one that user mode has,
 * also inside of ppoll(2) and its like. */
int ptrace_get_sigmask(pid_t tid, uint64_t *mask);
int ptrace_set_sigmask(pid_t tid, uint64_t mask);

/* The signals that wait to be delivered, to the thread or to its process, as
 * far as the kernel lists them: the first PTRACE_PENDING_MAX of each. */
#define PTRACE_PENDING_MAX 32
int ptrace_get_pending(pid_t tid, uint64_t *mask);

/* The extended state in the standard XSAVE format (not compacted). `len` is
 * the room in and the bytes used out; -EOVERFLOW when it may not have fitted.
 */
int ptrace_get_xstate(pid_t tid, void *buf, size_t *len);
int ptrace_set_xstate(pid_t tid, const void *buf, size_t len);

/* At the entry of a system call: which, with what; else is_entry is false. */
struct ptrace_call {
	bool is_entry;
	uint64_t nr;
	uint64_t args[6];
};

int ptrace_get_call(pid_t tid, struct ptrace_call *call);

/* What waitpid(2) gave for a thread that is traced. */
void ptrace_classify(int status, struct ptrace_stop *stop);

/* PTRACE_O_TRACESYSGOOD is always added. */
int ptrace_set_options(pid_t tid, unsigned long options);

/*
 * Whether the kernel would let us have a tracee without its seccomp filters
 * (PTRACE_O_SUSPEND_SECCOMP), asked with a child of our own. -EPERM without
 * CAP_SYS_ADMIN in the initial user namespace, or under a filter ourselves;
 * -EINVAL where it cannot (before 4.3, or without CONFIG_CHECKPOINT_RESTORE).
 */
int ptrace_can_suspend_seccomp(void);

/* Lets a group-stopped thread stay so, and hear of SIGCONT. */
int ptrace_listen(pid_t tid);

/* Which half of which system call the tracee stopped in (since 5.3). */
int ptrace_get_syscall_stop(pid_t tid, enum ptrace_syscall_stop *stop);

/* The thread's registered struct rseq, 0 when there is none. */
int ptrace_get_rseq(pid_t tid, uint64_t *remote_addr);

/* Whether a user shadow stack guards returns, and whether system calls are
 * dispatched to user mode (prctl PR_SET_SYSCALL_USER_DISPATCH). 1, 0, -errno.
 */
int ptrace_has_shadow_stack(pid_t tid);
int ptrace_has_syscall_dispatch(pid_t tid);
