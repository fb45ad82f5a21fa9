/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kill -9 of the tracer. The tracer is a child that infects and cures a victim
 * and that is traced in turn, so that it can be killed at the entry and at the
 * exit of each single system call it makes: nothing else that it does has an
 * effect on the victim. Then at random instants, with nobody tracing it.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/util.h"
#include "parasite/parasite.h"
#include "sys/ptrace.h"
#include "victim.h"

#define RANDOM_KILLS 300
#define RANDOM_US    4000 /* two lives or so */
#define STOP_NS	     10000000000

struct tracer {
	pid_t pid;
	int start; /* closing it lets the tracer begin */
};

static _Noreturn void trace(struct victim *v, int start, bool forever)
{
	int dev_fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	char c;

	if (read(start, &c, 1))
		_exit(1);
	do {
		struct parasite *p;
		int uffd = -1;

		if (parasite_infect(&p, v->pid, v->proc_fd, v->pidfd))
			_exit(2);
		if (parasite_make_uffd(p, dev_fd, &uffd))
			_exit(3);
		if (parasite_cure(p))
			_exit(4);
		close(uffd);
	} while (forever);
	_exit(0);
}

static void start_tracer(struct tracer *t, struct victim *v, bool forever)
{
	int start[2];

	assert_int_equal(pipe2(start, O_CLOEXEC), 0);
	t->start = start[1];
	t->pid = fork();
	assert_int_not_equal(t->pid, -1);
	if (!t->pid) {
		close(start[1]);
		trace(v, start[0], forever);
	}
	close(start[0]);
}

/* Lets it run to the next entry or exit of a system call, and tells which call;
 * -1 when it has exited, well. */
static long step(struct tracer *t)
{
	struct user_regs_struct regs;
	struct ptrace_stop stop = { 0 };

	do {
		assert_int_equal(ptrace_cont_to_syscall(t->pid, stop.sig), 0);
		assert_int_equal(ptrace_wait(t->pid, now_ns() + STOP_NS, &stop),
				 0);
		if (stop.kind == PTRACE_STOP_GONE) {
			assert_int_equal(stop.status, 0);
			return -1;
		}
	} while (stop.kind != PTRACE_STOP_SYSCALL);
	assert_int_equal(ptrace_get_regs(t->pid, &regs), 0);
	return (long)regs.orig_rax;
}

/*
 * Between the request that gives the victim a call which its filter kills for,
 * and the filter's look at it, the death of the tracer is the victim's: the
 * window that is left (see HARMLESS_CALL). A victim that is to run tells
 * nothing; it soon stops.
 */
static bool is_in_forbidden_call(const struct victim *v, unsigned traits)
{
	char text[256] = "";

	if (!(traits & VICTIM_SECCOMP))
		return false;
	for (unsigned i = 0; i < 1000; i++) {
		_cleanup_close_ int fd =
			openat(v->proc_fd, "syscall", O_RDONLY | O_CLOEXEC);

		memset(text, 0, sizeof(text));
		assert_true(read(fd, text, sizeof(text) - 1) > 0);
		if (strncmp(text, "running", 7))
			break;
		usleep(100);
	}
	return victim_is_forbidden_call(strtol(text, NULL, 10));
}

/* Kills it in its n-th stop since its first ptrace(2), and returns the system
 * call it was in; -1 when its life is shorter. */
static long kill_at(struct victim *v, unsigned traits, unsigned n)
{
	struct ptrace_stop stop;
	struct tracer t;
	long nr;

	start_tracer(&t, v, false);
	assert_int_equal(ptrace_seize(t.pid, 0), 0);
	assert_int_equal(ptrace_interrupt(t.pid), 0);
	assert_int_equal(ptrace_wait(t.pid, now_ns() + STOP_NS, &stop), 0);
	close(t.start);
	do {
		nr = step(&t);
	} while (nr >= 0 && nr != SYS_ptrace);
	for (unsigned i = 0; i < n && nr >= 0; i++)
		nr = step(&t);
	while (nr >= 0 && is_in_forbidden_call(v, traits))
		nr = step(&t);
	if (nr < 0)
		return nr;
	kill(t.pid, SIGKILL);
	waitpid(t.pid, NULL, __WALL);
	return nr;
}

static void sweep_kind(const struct victim_kind *kind, unsigned traits)
{
	const char *name = kind->name;
	struct victim v;
	unsigned n;

	victim_start(&v, kind, traits);
	for (n = 0;; n++) {
		long nr = kill_at(&v, traits, n);
		char when[128];

		snprintf(when, sizeof(when), "%s: killed at stop %u (call %ld)",
			 name, n, nr);
		victim_check(&v, when);
		if (nr < 0)
			break;
	}
	print_message("# %s, traits %#x: %u stops\n", name, traits, n);
	victim_stop(&v);
}

static void sweep(const char *name, unsigned traits)
{
	sweep_kind(victim_find_kind(name), traits);
}

static void test_every_call(void **state)
{
	(void)state;
	sweep("nanosleep", 0);
	sweep("read", VICTIM_SIGNALS);
	sweep("registers", VICTIM_ALTSTACK);
}

static void test_every_call_by_device(void **state)
{
	(void)state;
	sweep("ppoll_mask", VICTIM_UNPRIVILEGED);
	sweep("registers", VICTIM_UNPRIVILEGED | VICTIM_SIGNALS);
}

static void test_every_call_seccomp(void **state)
{
	(void)state;
	/* Not epoll: a tracer that dies in the first stop leaves it with the
	 * EINTR that the kernel gives to whoever is stopped there. */
	sweep("futex_timed", VICTIM_SECCOMP);
	sweep("poll", VICTIM_SECCOMP | VICTIM_UNPRIVILEGED);
}

/* The way back lies on a stack where the thread is not, and what a killed
 * tracer left there must not be in the way of the next one. */
static void test_every_call_on_other_stacks(void **state)
{
	(void)state;
	sweep_kind(&victim_coroutine, VICTIM_ALTSTACK);
	sweep_kind(&victim_coroutine_poll, VICTIM_UNPRIVILEGED);
	sweep_kind(&victim_in_handler, VICTIM_SECCOMP);
	sweep_kind(&victim_main_exited, 0);
}

/* What the killed ones left must not be in the way. */
static void check_whole_life(struct victim *v)
{
	struct tracer t;
	int status;

	start_tracer(&t, v, false);
	close(t.start);
	waitpid(t.pid, &status, 0);
	assert_int_equal(status, 0);
}

static void kill_kind_at_random(const struct victim_kind *kind, unsigned traits)
{
	struct victim v;

	victim_start(&v, kind, traits);
	for (unsigned i = 0; i < RANDOM_KILLS; i++) {
		struct tracer t;
		int status;

		start_tracer(&t, &v, true);
		close(t.start);
		usleep((useconds_t)(rand() % RANDOM_US));
		kill(t.pid, SIGKILL);
		waitpid(t.pid, &status, 0);
		assert_true(WIFSIGNALED(status));
		victim_check(&v, kind->name);
		if (i % 10 == 0)
			check_whole_life(&v);
	}
	victim_stop(&v);
}

static void kill_at_random(const char *name, unsigned traits)
{
	kill_kind_at_random(victim_find_kind(name), traits);
}

static void test_random_instants_on_other_stacks(void **state)
{
	(void)state;
	kill_kind_at_random(&victim_coroutine, VICTIM_ALTSTACK);
	kill_kind_at_random(&victim_coroutine_poll, VICTIM_UNPRIVILEGED);
	kill_kind_at_random(&victim_in_handler, 0);
	kill_kind_at_random(&victim_main_exited, 0);
}

static void test_random_instants(void **state)
{
	(void)state;
	kill_at_random("ppoll", 0);
	/* Restarted twice; not of a call whose number the code does not show
	 * (arch_name_restarted()). */
	kill_at_random("poll", 0);
	kill_at_random("nanosleep", 0);
	kill_at_random("registers", VICTIM_SIGNALS | VICTIM_UNPRIVILEGED);
	kill_at_random("futex", VICTIM_UNPRIVILEGED);
	kill_at_random("stack", VICTIM_SIGNALS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_call),
		cmocka_unit_test(test_every_call_by_device),
		cmocka_unit_test(test_every_call_seccomp),
		cmocka_unit_test(test_every_call_on_other_stacks),
		cmocka_unit_test(test_random_instants),
		cmocka_unit_test(test_random_instants_on_other_stacks),
	};

	if (geteuid()) {
		puts("1..0 # SKIP needs root: other processes are traced");
		return 0;
	}
	srand((unsigned)now_ns());
	return cmocka_run_group_tests_name("parasite kill", tests, NULL, NULL);
}
