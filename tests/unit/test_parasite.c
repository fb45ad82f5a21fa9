/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "parasite/parasite.h"
#include "sys/fdpass.h"
#include "sys/ptrace.h"
#include "sys/vmio.h"
#include "victim.h"

#define ROUNDS 20

static int open_device(void)
{
	return open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
}

static void check_uffd(int uffd)
{
	struct uffdio_api api = { .api = UFFD_API };

	assert_true(fcntl(uffd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(uffd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(ioctl(uffd, UFFDIO_API, &api), 0);
}

/* The whole life, by this very thread. */
static void infect_and_cure(struct victim *v, int dev_fd)
{
	_cleanup_close_ int uffd = -1;
	struct parasite *p;

	assert_int_equal(parasite_infect(&p, v->pid, v->proc_fd, v->pidfd), 0);
	assert_int_equal(parasite_make_uffd(p, dev_fd, &uffd), 0);
	assert_int_equal(parasite_cure(p), 0);
	check_uffd(uffd);
}

static void check_kind(const struct victim_kind *kind, unsigned traits)
{
	_cleanup_close_ int dev_fd = open_device();
	struct victim v;

	victim_start(&v, kind, traits);
	for (unsigned i = 0; i < ROUNDS; i++) {
		infect_and_cure(&v, dev_fd);
		victim_check(&v, kind->name);
	}
	victim_stop(&v);
}

static void test_calls_restart(void **state)
{
	(void)state;
	for (size_t i = 0; i < victim_n_kinds; i++)
		check_kind(&victim_kinds[i], 0);
}

static void test_calls_restart_under_signals(void **state)
{
	(void)state;
	for (size_t i = 0; i < victim_n_kinds; i++)
		check_kind(&victim_kinds[i], VICTIM_SIGNALS);
}

static void test_alternate_stack(void **state)
{
	(void)state;
	check_kind(victim_find_kind("registers"), VICTIM_ALTSTACK);
	check_kind(victim_find_kind("read"), VICTIM_ALTSTACK);
}

static void test_unprivileged(void **state)
{
	_cleanup_close_ int dev_fd = open_device();

	(void)state;
	if (dev_fd < 0) {
		print_message("# no /dev/userfaultfd: %m\n");
		skip();
	}
	check_kind(victim_find_kind("poll"), VICTIM_UNPRIVILEGED);
}

static void test_seccomp(void **state)
{
	(void)state;
	check_kind(victim_find_kind("poll"), VICTIM_SECCOMP);
	check_kind(victim_find_kind("epoll"),
		   VICTIM_SECCOMP | VICTIM_UNPRIVILEGED);
}

static void test_no_device(void **state)
{
	struct parasite *p;
	struct victim v;
	int uffd = -1, r;

	(void)state;
	victim_start(&v, victim_find_kind("poll"), VICTIM_UNPRIVILEGED);
	assert_int_equal(parasite_infect(&p, v.pid, v.proc_fd, v.pidfd), 0);
	r = parasite_make_uffd(p, -1, &uffd);
	assert_int_equal(parasite_cure(p), 0);
	victim_check(&v, "no device");
	victim_stop(&v);
	if (!r) {
		close(uffd);
		print_message("# vm.unprivileged_userfaultfd is set\n");
		skip();
	}
	assert_int_equal(r, RESULT_UNSUPPORTED);
}

static void check_no_fds(unsigned traits)
{
	_cleanup_close_ int dev_fd = open_device();
	struct parasite *p;
	struct victim v;
	int uffd = -1;

	victim_start(&v, victim_find_kind("poll"), traits);
	assert_int_equal(parasite_infect(&p, v.pid, v.proc_fd, v.pidfd), 0);
	assert_int_equal(parasite_make_uffd(p, dev_fd, &uffd), -EMFILE);
	assert_int_equal(uffd, -1);
	assert_int_equal(parasite_cure(p), 0);
	victim_check(&v, "no descriptors");
	victim_stop(&v);
}

static void test_no_fds(void **state)
{
	(void)state;
	check_no_fds(VICTIM_NO_FDS);
	check_no_fds(VICTIM_NO_FDS | VICTIM_UNPRIVILEGED);
}

static void check_refused(struct victim *v)
{
	struct parasite *p = NULL;

	assert_int_equal(parasite_infect(&p, v->pid, v->proc_fd, v->pidfd),
			 RESULT_UNSUPPORTED);
	assert_null(p);
}

static void test_refuse_stopped(void **state)
{
	struct victim v;

	(void)state;
	victim_start(&v, victim_find_kind("nanosleep"), 0);
	kill(v.pid, SIGSTOP);
	while (victim_run_state(&v) != 'T')
		usleep(1000);
	check_refused(&v);
	assert_int_equal(victim_run_state(&v), 'T');
	kill(v.pid, SIGCONT);
	victim_check(&v, "continued");
	victim_stop(&v);
}

static void test_refuse_traced(void **state)
{
	int ready[2];
	struct victim v;
	pid_t tracer;
	char c;

	(void)state;
	victim_start(&v, victim_find_kind("nanosleep"), 0);
	assert_int_equal(pipe(ready), 0);
	tracer = fork();
	if (!tracer) {
		if (!ptrace_seize(v.pid, 0) && write(ready[1], "", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	check_refused(&v);
	kill(tracer, SIGKILL);
	waitpid(tracer, NULL, 0);
	victim_check(&v, "no longer traced");
	victim_stop(&v);
	close(ready[0]);
	close(ready[1]);
}

static void test_refuse_32_bit(void **state)
{
	struct victim v;

	(void)state;
	victim_start(&v, &victim_32_bit, 0);
	check_refused(&v);
	victim_check_runs(&v, "32-bit");
	victim_stop(&v);
}

/* Nothing but the exit of its tracer lets go of it. */
static void test_uninterruptible(void **state)
{
	struct victim v;
	int status;
	pid_t tracer;

	(void)state;
	victim_start(&v, &victim_vfork, 0);
	while (victim_run_state(&v) != 'D')
		usleep(1000);
	tracer = fork();
	if (!tracer) {
		struct parasite *p;

		_exit(parasite_infect(&p, v.pid, v.proc_fd, v.pidfd) ==
				      -ETIMEDOUT
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(tracer, &status, 0), tracer);
	assert_int_equal(status, 0);
	while (!atomic_load(&v.report->steps) && victim_run_state(&v) != 'Z')
		usleep(10000);
	assert_int_equal(atomic_load(&v.report->n_failures), 0);
	assert_true(atomic_load(&v.report->steps) > 0);
	victim_stop(&v);
}

static void test_gone(void **state)
{
	struct parasite *p = NULL;
	struct victim v;

	(void)state;
	victim_start(&v, victim_find_kind("poll"), 0);
	kill(v.pid, SIGKILL);
	waitpid(v.pid, NULL, 0);
	assert_int_equal(parasite_infect(&p, v.pid, v.proc_fd, v.pidfd),
			 -ESRCH);
	victim_stop(&v);
}

static void test_killed_while_held(void **state)
{
	struct parasite *p;
	struct victim v;
	int uffd = -1;

	(void)state;
	victim_start(&v, victim_find_kind("poll"), 0);
	assert_int_equal(parasite_infect(&p, v.pid, v.proc_fd, v.pidfd), 0);
	kill(v.pid, SIGKILL);
	assert_true(parasite_make_uffd(p, -1, &uffd) < 0);
	assert_int_equal(parasite_cure(p), -ESRCH);
	victim_stop(&v);
}

/* Stopped by its user while it is ours: it stays stopped when we are done. */
static void test_stopped_while_held(void **state)
{
	struct parasite *p;
	struct victim v;
	int uffd = -1;

	(void)state;
	victim_start(&v, victim_find_kind("nanosleep"), 0);
	assert_int_equal(parasite_infect(&p, v.pid, v.proc_fd, v.pidfd), 0);
	kill(v.pid, SIGSTOP);
	assert_int_equal(parasite_make_uffd(p, -1, &uffd), 0);
	close(uffd);
	assert_int_equal(parasite_cure(p), 0);
	for (unsigned i = 0; i < 1000 && victim_run_state(&v) != 'T'; i++)
		usleep(1000);
	assert_int_equal(victim_run_state(&v), 'T');
	kill(v.pid, SIGCONT);
	victim_check(&v, "continued");
	victim_stop(&v);
}

static void test_fdpass(void **state)
{
	char buf[8] = "";
	size_t len = sizeof(buf), n_fds = 2;
	int pair[2], fds[2] = { -1, -1 };

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(fdpass_send(pair[0], "abc", 3, pair, 2), 0);
	assert_int_equal(fdpass_recv(pair[1], buf, &len, fds, &n_fds), 0);
	assert_int_equal(len, 3);
	assert_int_equal(n_fds, 2);
	assert_string_equal(buf, "abc");
	assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	close(fds[0]);
	close(fds[1]);

	/* More than there is room for: nothing arrives and nothing leaks. */
	n_fds = 1;
	assert_int_equal(fdpass_send(pair[0], "abc", 3, pair, 2), 0);
	assert_int_equal(fdpass_recv(pair[1], buf, &len, fds, &n_fds),
			 -EMSGSIZE);
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);
	len = 2;
	assert_int_equal(fdpass_send(pair[0], "abc", 3, NULL, 0), 0);
	assert_int_equal(fdpass_recv(pair[1], buf, &len, fds, &n_fds),
			 -EMSGSIZE);
	close(pair[0]);
	len = sizeof(buf);
	assert_int_equal(fdpass_recv(pair[1], buf, &len, fds, &n_fds), 0);
	assert_int_equal(len, 0);
	close(pair[1]);
}

static void test_vm_io(void **state)
{
	static char a[8192], b[8192];
	struct range ranges[] = {
		{ (uintptr_t)a, (uintptr_t)a + 100 },
		{ (uintptr_t)a + 200, (uintptr_t)a + 200 },
		{ (uintptr_t)a + 4096, (uintptr_t)a + 8192 },
		{ 0, 4096 },
	};
	size_t n_bytes;

	(void)state;
	memset(a, 'a', sizeof(a));
	assert_int_equal(vm_read(getpid(), (uintptr_t)a, b, sizeof(b)), 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(vm_write(getpid(), (uintptr_t)a, "xyz", 3), 0);
	assert_memory_equal(a, "xyz", 3);
	assert_int_equal(vm_read(getpid(), 0, b, 1), -EFAULT);
	assert_int_equal(vm_read(getpid(), UINT64_MAX, b, 2), -EFAULT);
	assert_int_equal(vm_write(getpid(), 0, b, 1), -EFAULT);

	assert_int_equal(vm_read_ranges(getpid(), ranges, 3, b, &n_bytes), 0);
	assert_int_equal(n_bytes, 100 + 4096);
	assert_memory_equal(b, a, 100);
	assert_memory_equal(b + 100, a + 4096, 4096);
	assert_int_equal(vm_read_ranges(getpid(), ranges, 4, b, &n_bytes),
			 -EFAULT);
	assert_int_equal(n_bytes, 100 + 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fdpass),
		cmocka_unit_test(test_vm_io),
		cmocka_unit_test(test_calls_restart),
		cmocka_unit_test(test_calls_restart_under_signals),
		cmocka_unit_test(test_alternate_stack),
		cmocka_unit_test(test_unprivileged),
		cmocka_unit_test(test_seccomp),
		cmocka_unit_test(test_no_device),
		cmocka_unit_test(test_no_fds),
		cmocka_unit_test(test_refuse_stopped),
		cmocka_unit_test(test_refuse_traced),
		cmocka_unit_test(test_refuse_32_bit),
		cmocka_unit_test(test_uninterruptible),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_killed_while_held),
		cmocka_unit_test(test_stopped_while_held),
	};

	if (geteuid()) {
		puts("1..0 # SKIP needs root: other processes are traced");
		return 0;
	}
	return cmocka_run_group_tests_name("parasite", tests, NULL, NULL);
}
