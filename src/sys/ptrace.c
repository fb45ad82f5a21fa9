/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/ptrace.h"

#include <elf.h>
#include <errno.h>
#include <linux/ptrace.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

/* Newer than the oldest headers we build with. */
#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif
#define GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211 /* since 6.4 */
#define NOTE_X86_SHSTK			 0x204	/* since 6.6 */

/* A stop is usually a few microseconds away: look often at first. */
#define WAIT_SPINS	  100
#define WAIT_SLEEP_MIN_NS 20000
#define WAIT_SLEEP_MAX_NS 1000000

/* Not the C library's ptrace(): its header would be shadowed by ours. */
static int request(long req, pid_t tid, uintptr_t addr, uintptr_t data)
{
	return syscall(SYS_ptrace, req, tid, addr, data) < 0 ? -errno : 0;
}

int ptrace_seize(pid_t tid, unsigned long options)
{
	return request(PTRACE_SEIZE, tid, 0, options | PTRACE_O_TRACESYSGOOD);
}

int ptrace_interrupt(pid_t tid)
{
	return request(PTRACE_INTERRUPT, tid, 0, 0);
}

void ptrace_classify(int status, struct ptrace_stop *stop)
{
	int event = status >> 16;

	stop->status = status;
	stop->sig = 0;
	if (!WIFSTOPPED(status)) {
		stop->kind = PTRACE_STOP_GONE;
	} else if (event == PTRACE_EVENT_STOP && WSTOPSIG(status) == SIGTRAP) {
		stop->kind = PTRACE_STOP_EVENT;
	} else if (event == PTRACE_EVENT_STOP) {
		stop->kind = PTRACE_STOP_GROUP;
		stop->sig = WSTOPSIG(status);
	} else if (event) {
		stop->kind = PTRACE_STOP_OTHER;
	} else if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
		stop->kind = PTRACE_STOP_SYSCALL;
	} else {
		stop->kind = PTRACE_STOP_SIGNAL;
		stop->sig = WSTOPSIG(status);
	}
}

int ptrace_look(pid_t tid, struct ptrace_stop *stop)
{
	int status;
	pid_t r = waitpid(tid, &status, __WALL | WNOHANG);

	if (r == tid) {
		ptrace_classify(status, stop);
		return 0;
	}
	if (r < 0 && errno != EINTR)
		return errno == ECHILD ? -ESRCH : -errno;
	return -EAGAIN;
}

void ptrace_wait_a_little(unsigned *n_looks)
{
	uint64_t sleep_ns = WAIT_SLEEP_MAX_NS;
	unsigned n = (*n_looks)++;

	if (n < WAIT_SPINS) {
		sched_yield();
		return;
	}
	n -= WAIT_SPINS;
	if (n < 8)
		sleep_ns = min_u64(WAIT_SLEEP_MIN_NS << n, sleep_ns);
	nanosleep(&(struct timespec){ .tv_nsec = (long)sleep_ns }, NULL);
}

int ptrace_wait(pid_t tid, uint64_t deadline_ns, struct ptrace_stop *stop)
{
	unsigned n_looks = 0;

	for (;;) {
		int r = ptrace_look(tid, stop);

		if (r != -EAGAIN)
			return r;
		if (now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		ptrace_wait_a_little(&n_looks);
	}
}

int ptrace_cont(pid_t tid, int sig)
{
	return request(PTRACE_CONT, tid, 0, (uintptr_t)sig);
}

int ptrace_cont_to_syscall(pid_t tid, int sig)
{
	return request(PTRACE_SYSCALL, tid, 0, (uintptr_t)sig);
}

int ptrace_detach(pid_t tid, int sig)
{
	return request(PTRACE_DETACH, tid, 0, (uintptr_t)sig);
}

int ptrace_get_regs(pid_t tid, struct user_regs_struct *regs)
{
	struct iovec iov = { .iov_base = regs, .iov_len = sizeof(*regs) };
	int r;

	r = request(PTRACE_GETREGSET, tid, NT_PRSTATUS, (uintptr_t)&iov);
	if (r)
		return r;
	/* The layout follows the code segment that the thread runs in. */
	return iov.iov_len == sizeof(*regs) ? 0 : -ENOEXEC;
}

int ptrace_set_regs(pid_t tid, const struct user_regs_struct *regs)
{
	struct iovec iov = { .iov_base = (void *)regs,
			     .iov_len = sizeof(*regs) };

	return request(PTRACE_SETREGSET, tid, NT_PRSTATUS, (uintptr_t)&iov);
}

int ptrace_get_sigmask(pid_t tid, uint64_t *mask)
{
	return request(PTRACE_GETSIGMASK, tid, sizeof(*mask), (uintptr_t)mask);
}

int ptrace_set_sigmask(pid_t tid, uint64_t mask)
{
	return request(PTRACE_SETSIGMASK, tid, sizeof(mask), (uintptr_t)&mask);
}

int ptrace_get_pending(pid_t tid, uint64_t *mask)
{
	static const uint32_t queues[] = { 0, PTRACE_PEEKSIGINFO_SHARED };
	siginfo_t infos[PTRACE_PENDING_MAX];

	*mask = 0;
	for (size_t i = 0; i < ARRAY_SIZE(queues); i++) {
		struct ptrace_peeksiginfo_args args = {
			.flags = queues[i],
			.nr = PTRACE_PENDING_MAX,
		};
		long n = syscall(SYS_ptrace, PTRACE_PEEKSIGINFO, tid, &args,
				 infos);

		if (n < 0)
			return -errno;
		for (long k = 0; k < n; k++)
			if (infos[k].si_signo > 0 && infos[k].si_signo <= 64)
				*mask |= (uint64_t)1 << (infos[k].si_signo - 1);
	}
	return 0;
}

int ptrace_get_xstate(pid_t tid, void *buf, size_t *len)
{
	struct iovec iov = { .iov_base = buf, .iov_len = *len };
	int r;

	r = request(PTRACE_GETREGSET, tid, NT_X86_XSTATE, (uintptr_t)&iov);
	if (r)
		return r;
	/* A full buffer cannot be told from a truncated state. */
	if (iov.iov_len >= *len)
		return -EOVERFLOW;
	*len = iov.iov_len;
	return 0;
}

int ptrace_set_xstate(pid_t tid, const void *buf, size_t len)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };

	return request(PTRACE_SETREGSET, tid, NT_X86_XSTATE, (uintptr_t)&iov);
}

int ptrace_get_call(pid_t tid, struct ptrace_call *call)
{
	struct ptrace_syscall_info info = { 0 };

	if (syscall(SYS_ptrace, PTRACE_GET_SYSCALL_INFO, tid, sizeof(info),
		    &info) < 0)
		return -errno;
	*call = (struct ptrace_call){
		.is_entry = info.op == PTRACE_SYSCALL_INFO_ENTRY,
	};
	if (!call->is_entry)
		return 0;
	call->nr = info.entry.nr;
	for (size_t i = 0; i < ARRAY_SIZE(call->args); i++)
		call->args[i] = info.entry.args[i];
	return 0;
}

int ptrace_set_options(pid_t tid, unsigned long options)
{
	return request(PTRACE_SETOPTIONS, tid, 0,
		       options | PTRACE_O_TRACESYSGOOD);
}

/* Stands, traced by its parent; ends with it. */
static _Noreturn void stand_as_tracee(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || request(PTRACE_TRACEME, 0, 0, 0))
		_exit(1);
	kill(getpid(), SIGSTOP);
	_exit(1);
}

static pid_t wait_child(pid_t pid, int *status)
{
	pid_t r;

	do
		r = waitpid(pid, status, __WALL);
	while (r < 0 && errno == EINTR);
	return r;
}

int ptrace_can_suspend_seccomp(void)
{
	pid_t parent = getpid(), pid = fork();
	int status, r = -EPERM;

	if (pid < 0)
		return -errno;
	if (!pid)
		stand_as_tracee(parent);
	if (wait_child(pid, &status) == pid && WIFSTOPPED(status)) {
		r = request(PTRACE_SETOPTIONS, pid, 0,
			    PTRACE_O_SUSPEND_SECCOMP);
		kill(pid, SIGKILL);
		wait_child(pid, &status);
	}
	return r;
}

int ptrace_listen(pid_t tid)
{
	return request(PTRACE_LISTEN, tid, 0, 0);
}

int ptrace_get_syscall_stop(pid_t tid, enum ptrace_syscall_stop *stop)
{
	struct ptrace_syscall_info info = { 0 };

	if (syscall(SYS_ptrace, PTRACE_GET_SYSCALL_INFO, tid, sizeof(info),
		    &info) < 0)
		return -errno;
	switch (info.op) {
	case PTRACE_SYSCALL_INFO_ENTRY:
		*stop = PTRACE_SYSCALL_ENTRY;
		break;
	case PTRACE_SYSCALL_INFO_EXIT:
		*stop = PTRACE_SYSCALL_EXIT;
		break;
	default:
		*stop = PTRACE_SYSCALL_NONE;
	}
	return 0;
}

int ptrace_get_rseq(pid_t tid, uint64_t *remote_addr)
{
	struct {
		uint64_t rseq;
		uint32_t size;
		uint32_t signature;
		uint32_t flags;
		uint32_t pad;
	} conf = { 0 };

	*remote_addr = 0;
	if (syscall(SYS_ptrace, PTRACE_GET_RSEQ_CONFIGURATION, tid,
		    sizeof(conf), &conf) < 0)
		/* Before 5.13, or a kernel without rseq. */
		return errno == EIO || errno == EINVAL ? 0 : -errno;
	*remote_addr = conf.rseq;
	return 0;
}

int ptrace_has_shadow_stack(pid_t tid)
{
	uint64_t ssp;
	struct iovec iov = { .iov_base = &ssp, .iov_len = sizeof(ssp) };
	int r;

	r = request(PTRACE_GETREGSET, tid, NOTE_X86_SHSTK, (uintptr_t)&iov);
	if (r == -ESRCH)
		return r;
	return r ? 0 : 1; /* -ENODEV or -EINVAL: not active or not known */
}

int ptrace_has_syscall_dispatch(pid_t tid)
{
	struct {
		uint64_t mode;
		uint64_t selector;
		uint64_t offset;
		uint64_t len;
	} conf = { 0 };
	int r;

	r = request(GET_SYSCALL_USER_DISPATCH_CONFIG, tid, sizeof(conf),
		    (uintptr_t)&conf);
	if (r == -ESRCH)
		return r;
	return !r && conf.mode ? 1 : 0; /* -EIO: not known */
}
