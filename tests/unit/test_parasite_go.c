/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A Go program as the target: static, with a busy main goroutine on a stack of
 * Go's own and the collector at work. Its path is the only argument; without
 * one there was no Go to build it with.
 */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "parasite/parasite.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"

#define ROUNDS	  200
#define N_KILLS	  100
#define RANDOM_US 6000
#define SETTLE_NS 20000000000

/* As in victim.go. */
struct report {
	atomic_ulong steps;
	atomic_ulong failures;
	atomic_ulong beats;
	char text[256];
};

struct go {
	pid_t pid;
	int proc_fd, pidfd, dev_fd;
	bool alone; /* it has no goroutine but the main one */
	struct report *report;
};

static const char *program;

static void wait_steps(struct go *go)
{
	unsigned long steps = atomic_load(&go->report->steps);
	unsigned long beats = atomic_load(&go->report->beats);
	uint64_t deadline = now_ns() + SETTLE_NS;

	while (atomic_load(&go->report->steps) < steps + 2 ||
	       (!go->alone && atomic_load(&go->report->beats) < beats + 2)) {
		assert_true(pidfd_is_alive(go->pidfd));
		assert_true(now_ns() < deadline);
		usleep(200);
	}
	if (atomic_load(&go->report->failures))
		fail_msg("the victim: %.255s", go->report->text);
}

static unsigned count_uffds(struct go *go)
{
	_cleanup_closedir_ DIR *dir =
		fdopendir(openat(go->proc_fd, "fd", O_RDONLY | O_DIRECTORY));
	struct dirent *entry;
	unsigned n = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char name[64] = "";

		if (readlinkat(dirfd(dir), entry->d_name, name,
			       sizeof(name) - 1) > 0)
			n += !strcmp(name, "anon_inode:[userfaultfd]") ||
			     !strncmp(name, "socket:", 7);
	}
	return n;
}

static void start(struct go *go, bool alone)
{
	char path[] = "/tmp/snapuffd-go-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 4096), 0);
	go->alone = alone;
	go->report =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(go->report, MAP_FAILED);
	close(fd);
	go->pid = fork();
	if (!go->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(program, program, path, alone ? "alone" : NULL, NULL);
		_exit(127);
	}
	go->proc_fd = procfs_open(go->pid);
	go->pidfd = pidfd_from_pid(go->pid);
	go->dev_fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	wait_steps(go);
	unlink(path);
}

static void stop(struct go *go)
{
	wait_steps(go);
	kill(go->pid, SIGKILL);
	waitpid(go->pid, NULL, 0);
	munmap(go->report, 4096);
	close_fd(&go->proc_fd);
	close_fd(&go->pidfd);
	close_fd(&go->dev_fd);
}

static int infect_and_cure(struct go *go)
{
	_cleanup_close_ int uffd = -1;
	struct parasite *p;
	int r;

	r = parasite_infect(&p, go->pid, go->proc_fd, go->pidfd);
	if (r)
		return r;
	r = parasite_make_uffd(p, go->dev_fd, &uffd);
	return parasite_cure(p) ?: r;
}

static void check(bool alone)
{
	struct go go;

	start(&go, alone);
	for (unsigned i = 0; i < ROUNDS; i++) {
		assert_int_equal(infect_and_cure(&go), 0);
		assert_int_equal(count_uffds(&go), 0);
		if (i % 10 == 0)
			wait_steps(&go);
	}
	stop(&go);
}

static void test_busy(void **state)
{
	(void)state;
	check(false);
}

static void test_alone(void **state)
{
	(void)state;
	check(true);
}

/* Go's code may hold nothing that stores a result on the way home (remote.h):
 * then a descriptor may stay, and only that is not asked here. */
static void check_killed_tracer(bool alone)
{
	struct go go;

	start(&go, alone);
	for (unsigned i = 0; i < N_KILLS; i++) {
		pid_t tracer = fork();
		int status;

		if (!tracer)
			while (!infect_and_cure(&go))
				;
		if (!tracer)
			_exit(1);
		usleep((useconds_t)(rand() % RANDOM_US));
		kill(tracer, SIGKILL);
		waitpid(tracer, &status, 0);
		assert_true(WIFSIGNALED(status));
		if (i % 10 == 0)
			wait_steps(&go);
		/* What is left must not be in the way. */
		assert_int_equal(infect_and_cure(&go), 0);
	}
	stop(&go);
}

static void test_killed_tracer(void **state)
{
	(void)state;
	check_killed_tracer(false);
	check_killed_tracer(true);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_alone),
		cmocka_unit_test(test_killed_tracer),
	};

	if (argc < 2) {
		puts("1..0 # SKIP no Go here to build the victim with");
		return 77;
	}
	if (geteuid()) {
		puts("1..0 # SKIP needs root: other processes are traced");
		return 77;
	}
	program = argv[1];
	srand((unsigned)now_ns());
	return cmocka_run_group_tests_name("parasite go", tests, NULL, NULL);
}
