/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * denied ARGV...: runs that where a seccomp filter kills for what no program
 * needs but one that looks into others: userfaultfd, ptrace, and the reading of
 * descriptors and memory of another process.
 *
 * denied -n ARGV...: the filter is there, and lets everything be.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int install_filter(int killing)
{
	unsigned int answer =
		killing ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ALLOW;
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ptrace, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_getfd, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 1,
			 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, answer),
	};
	struct sock_fprog program = {
		sizeof(filter) / sizeof(*filter),
		filter,
	};

	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
	int killing = argc < 2 || strcmp(argv[1], "-n") != 0;

	argv += killing ? 1 : 2;
	if (!*argv)
		return 2;
	if (install_filter(killing)) {
		fprintf(stderr, "denied: seccomp: %s\n", strerror(errno));
		return 1;
	}
	execvp(*argv, argv);
	fprintf(stderr, "denied: %s: %s\n", *argv, strerror(errno));
	return 127;
}
