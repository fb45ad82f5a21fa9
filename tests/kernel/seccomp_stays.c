/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A seccomp filter stays for as long as its thread lives. So calls that unmap
 * are not held by one (SECCOMP_RET_USER_NOTIF): when its supervisor is gone
 * they fail with ENOSYS instead of being made, and a second filter cannot take
 * that back, nor can a tracer, nor does exec.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "kernel-test.h"

static int install(struct sock_filter *filter, size_t n, unsigned flags)
{
	struct sock_fprog program = { (unsigned short)n, filter };

	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags,
			    &program);
}

static void child_main(void)
{
	struct sock_filter notify[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_filter allow[] = {
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	int listener;

	need(syscall(SYS_getppid) == getppid());
	need(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	listener = install(notify, ARRAY_SIZE(notify),
			   SECCOMP_FILTER_FLAG_NEW_LISTENER);
	if (listener < 0)
		skip("a seccomp listener: %s", strerror(errno));
	/* As when the supervisor is killed. */
	close(listener);
	errno = 0;
	need(syscall(SYS_getppid) == -1 && errno == ENOSYS);
	need(!install(allow, ARRAY_SIZE(allow), 0));
	need(syscall(SYS_getppid) == -1 && errno == ENOSYS);
	need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_DISABLED) == -1);
	execl("/proc/self/exe", "seccomp_stays", "again", NULL);
	fail("exec: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	pid_t pid;

	(void)argv;
	if (argc > 1) {
		need(syscall(SYS_getppid) == -1 && errno == ENOSYS);
		return 0;
	}
	pid = fork_child();
	if (!pid)
		child_main();
	return reap(pid);
}
