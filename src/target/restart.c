/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/restart.h"

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>

/* include/linux/errno.h: the kernel's own, which only a tracer sees. */
#define ERESTARTNOHAND 514

/* Not close(2) and not connect(2), which have done their work by then. */
static bool may_be_repeated(uint64_t nr)
{
	switch (nr) {
	case SYS_epoll_wait:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_rt_sigtimedwait:
	case SYS_io_getevents:
	case SYS_io_pgetevents:
	case SYS_io_uring_enter:
	case SYS_semop:
	case SYS_semtimedop:
	/* Of sockets with SO_RCVTIMEO or SO_SNDTIMEO. */
	case SYS_read:
	case SYS_recvfrom:
	case SYS_recvmsg:
	case SYS_recvmmsg:
	case SYS_readv:
	case SYS_accept:
	case SYS_accept4:
	case SYS_write:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_sendmmsg:
	case SYS_writev:
		return true;
	default:
		return false;
	}
}

bool restart_eintr(struct user_regs_struct *regs)
{
	if ((long)regs->rax != -EINTR || !may_be_repeated(regs->orig_rax))
		return false;
	regs->rax = (uint64_t)-ERESTARTNOHAND;
	return true;
}

int restart_mend(pid_t tid)
{
	struct user_regs_struct regs;
	int r = ptrace_get_regs(tid, &regs);

	if (r == -ENOEXEC)
		return 0; /* 32-bit code, of which nothing is known */
	if (!r && restart_eintr(&regs))
		r = ptrace_set_regs(tid, &regs);
	return r;
}

int restart_pass_on(pid_t tid, int sig)
{
	int r = restart_mend(tid);

	if (!r)
		r = ptrace_interrupt(tid);
	return r ? r : ptrace_cont(tid, sig);
}
