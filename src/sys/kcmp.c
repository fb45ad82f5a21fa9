/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/kcmp.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

int kcmp_same_memory(pid_t a, pid_t b)
{
	long r = syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0);

	return r < 0 ? -errno : !r;
}

int kcmp_same_file(pid_t a, int fd_a, pid_t b, int fd_b)
{
	long r = syscall(SYS_kcmp, a, b, KCMP_FILE, fd_a, fd_b);

	return r < 0 ? -errno : !r;
}
