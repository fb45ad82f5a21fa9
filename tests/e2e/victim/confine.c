/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a program does to itself so that an intruder can do little: each is one
 * word of a list with commas between, done in this order once all threads run.
 *
 *	nobody		another user, for ever
 *	no_new_privs
 *	undumpable	no core, and /proc is root's
 *	files:N		N descriptors are left to be opened
 *	filter		whatever is not known kills, in all threads
 *	strict		the main thread may read and write, no more
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

#define NOBODY 65534

/* All that is done from then on. None of those that a userfaultfd takes:
 * userfaultfd, socket, recvmsg, ioctl, close.
 */
/* clang-format off */
static const int known_calls[] = {
	SYS_read, SYS_write, SYS_pause, SYS_exit_group,
	SYS_futex, SYS_sched_yield, SYS_munmap,
	SYS_clock_nanosleep, SYS_clock_gettime,
	SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_restart_syscall,
};
/* clang-format on */

#define N_KNOWN (sizeof(known_calls) / sizeof(*known_calls))

static void install_filter(void)
{
	struct sock_filter filter[N_KNOWN + 3] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog program = { N_KNOWN + 3, filter };
	size_t i;

	for (i = 0; i < N_KNOWN; i++)
		filter[1 + i] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, known_calls[i],
			(unsigned char)(N_KNOWN - i), 0);
	filter[++i] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
						   SECCOMP_RET_KILL_PROCESS);
	filter[++i] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
						   SECCOMP_RET_ALLOW);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		    SECCOMP_FILTER_FLAG_TSYNC, &program))
		victim_die("seccomp: %s", strerror(errno));
}

/* One that begins makes calls that it makes never again. */
static void wait_for_threads(void)
{
	unsigned int n;

	do {
		DIR *dir = opendir("/proc/self/task");

		if (!dir)
			victim_die("/proc: %s", strerror(errno));
		usleep(1000);
		for (n = 0; readdir(dir); n++)
			;
		closedir(dir);
	} while (n - 2 != atomic_load(&victim_n_threads));
}

static void become_nobody(void)
{
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY))
		victim_die("setresuid: %s", strerror(errno));
	/* As after an exec; both went with the user. */
	prctl(PR_SET_DUMPABLE, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* The limit is the first number that is free, and `n_free` more. */
static void use_up_files(unsigned int n_free)
{
	struct rlimit limit;
	int fd = open("/dev/null", O_RDONLY);

	if (fd < 0 || close(fd))
		victim_die("/dev/null: %s", strerror(errno));
	limit.rlim_cur = limit.rlim_max = (rlim_t)fd + n_free;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		victim_die("setrlimit: %s", strerror(errno));
}

static void confine(const char *how)
{
	/* Of these, fgets(3) must not ask for more. */
	static char buffer[4096];
	unsigned int n;

	if (strcmp(how, "nobody") == 0)
		become_nobody();
	else if (strcmp(how, "no_new_privs") == 0)
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	else if (strcmp(how, "undumpable") == 0)
		prctl(PR_SET_DUMPABLE, 0);
	else if (sscanf(how, "files:%u", &n) == 1)
		use_up_files(n);
	else if (strcmp(how, "filter") == 0) {
		setvbuf(stdin, buffer, _IOFBF, sizeof(buffer));
		install_filter();
	} else if (strcmp(how, "strict") == 0) {
		setvbuf(stdin, buffer, _IOFBF, sizeof(buffer));
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
	} else
		victim_die("confine: %s: what?", how);
}

void confine_start(const char *ways)
{
	char *list = strdup(ways), *at = list, *way;

	wait_for_threads();
	while (list && (way = strsep(&at, ",")))
		confine(way);
	free(list);
}
