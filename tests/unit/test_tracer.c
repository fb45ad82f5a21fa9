/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All threads of a process stopped at once, and let go: victims in every kind
 * of waiting that a thread is found in notice nothing.
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "sys/pidfd.h"
#include "target/tracer.h"
#include "victim.h"

#define FREEZES	  50
#define HOLDS	  5
#define MAX_NS	  2000000000
#define LONG_NS	  600000000000
#define N_THREADS 6

static void sleep_us(unsigned us)
{
	struct timespec ts = { .tv_nsec = us * 1000l };

	nanosleep(&ts, NULL);
}

static void open_target(struct target *target, pid_t pid)
{
	assert_int_equal(target_open(target, pid), 0);
}

/* One freeze, and what is read in it. */
static void freeze_once(const struct target *target)
{
	_cleanup_tracer_ struct tracer *tracer = NULL;
	const struct tracer_thread *threads;
	uint64_t since;
	size_t n;

	assert_int_equal(tracer_start(&tracer, NULL), 0);
	assert_int_equal(tracer_add(tracer, target), 0);
	assert_int_equal(tracer_freeze(tracer, MAX_NS, MAX_NS, &since), 0);
	threads = tracer_get_threads(tracer, &n);
	assert_true(n > 0);
	for (size_t i = 0; i < n; i++) {
		assert_true(threads[i].stands);
		assert_true(threads[i].regs.rip && threads[i].regs.rsp);
		assert_true(threads[i].xstate_len >= 576);
	}
	assert_int_equal(tracer_thaw(tracer), 0);
}

static void count_range(void *opaque, unsigned process, struct range range)
{
	(void)process;
	(void)range;
	++*(_Atomic unsigned *)opaque;
}

static void hold_once(const struct target *target)
{
	_cleanup_tracer_ struct tracer *tracer = NULL;
	_Atomic unsigned n_held = 0;
	struct tracer_holder holder = { count_range, (void *)&n_held };
	uint64_t since;

	assert_int_equal(tracer_start(&tracer, &holder), 0);
	assert_int_equal(tracer_add(tracer, target), 0);
	assert_int_equal(tracer_freeze(tracer, MAX_NS, MAX_NS, &since), 0);
	assert_int_equal(tracer_thaw_holding(tracer), 0);
	sleep_us(20000);
	tracer_let_go(tracer);
}

static void try_kind(const struct victim_kind *kind, unsigned traits)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	struct victim victim;

	victim_start(&victim, kind, traits);
	open_target(&target, victim.pid);
	for (unsigned i = 0; i < FREEZES; i++) {
		freeze_once(&target);
		sleep_us((unsigned)rand() % 2000);
	}
	victim_check(&victim, "after freezes");
	for (unsigned i = 0; i < HOLDS; i++) {
		hold_once(&target);
		sleep_us((unsigned)rand() % 2000);
	}
	victim_check_runs(&victim, "after holding calls");
	victim_check(&victim, "after holding calls");
	victim_stop(&victim);
}

static void test_all_kinds(void **state)
{
	(void)state;
	for (size_t i = 0; i < victim_n_kinds; i++)
		try_kind(&victim_kinds[i], 0);
}

static void test_under_signals(void **state)
{
	(void)state;
	for (size_t i = 0; i < victim_n_kinds; i++)
		try_kind(&victim_kinds[i], VICTIM_SIGNALS);
}

static void test_confined(void **state)
{
	(void)state;
	try_kind(&victim_kinds[0], VICTIM_UNPRIVILEGED | VICTIM_SECCOMP);
}

/* A process whose threads come and go, and map and unmap. */
struct churn {
	_Atomic uint64_t counters[N_THREADS];
	_Atomic uint64_t n_threads_made;
};

static struct churn *churn;

static void *short_life(void *data)
{
	return data;
}

static void *count(void *data)
{
	_Atomic uint64_t *counter = data;

	for (;;) {
		pthread_t thread;
		void *p = mmap(NULL, 8 * PAGE_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		*(volatile char *)p = 1;
		munmap(p, 8 * PAGE_SIZE);
		if (!pthread_create(&thread, NULL, short_life, NULL)) {
			pthread_join(thread, NULL);
			churn->n_threads_made++;
		}
		++*counter;
	}
	return NULL;
}

static pid_t start_churn(void)
{
	pid_t pid;

	churn = mmap(NULL, sizeof(*churn), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = fork();
	if (!pid) {
		pthread_t thread;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (int i = 1; i < N_THREADS; i++)
			pthread_create(&thread, NULL, count,
				       (void *)&churn->counters[i]);
		count((void *)&churn->counters[0]);
	}
	while (!churn->n_threads_made)
		sleep_us(100);
	return pid;
}

static void stop_churn(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	munmap(churn, sizeof(*churn));
}

/* Between freeze and thaw nobody moves, and nobody is missed. */
static void test_nobody_runs(void **state)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	pid_t pid = start_churn();

	(void)state;
	open_target(&target, pid);
	for (int i = 0; i < 100; i++) {
		_cleanup_tracer_ struct tracer *tracer = NULL;
		uint64_t before[N_THREADS], since;

		assert_int_equal(tracer_start(&tracer, NULL), 0);
		assert_int_equal(tracer_add(tracer, &target), 0);
		assert_int_equal(tracer_freeze(tracer, MAX_NS, MAX_NS, &since),
				 0);
		for (int k = 0; k < N_THREADS; k++)
			before[k] = churn->counters[k];
		sleep_us(500);
		for (int k = 0; k < N_THREADS; k++)
			assert_int_equal(before[k], churn->counters[k]);
		assert_int_equal(tracer_thaw(tracer), 0);
		sleep_us(500);
	}
	stop_churn(pid);
}

/* Each munmap waits for its capture, and goes on after it. */
static void test_unmaps_are_held(void **state)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	_cleanup_tracer_ struct tracer *tracer = NULL;
	_Atomic unsigned n_held = 0;
	struct tracer_holder holder = { count_range, (void *)&n_held };
	uint64_t before, made, since;
	pid_t pid = start_churn();

	(void)state;
	open_target(&target, pid);
	assert_int_equal(tracer_start(&tracer, &holder), 0);
	assert_int_equal(tracer_add(tracer, &target), 0);
	assert_int_equal(tracer_freeze(tracer, MAX_NS, MAX_NS, &since), 0);
	before = 0;
	for (int k = 0; k < N_THREADS; k++)
		before += churn->counters[k];
	assert_int_equal(tracer_thaw_holding(tracer), 0);
	sleep_us(300000);
	/* While they are held: they run on before tracer_let_go() returns. */
	made = 0;
	for (int k = 0; k < N_THREADS; k++)
		made += churn->counters[k];
	made -= before;
	tracer_let_go(tracer);
	/* Those that were under way when it began may be missed. */
	assert_true(made > 10);
	assert_true(n_held + 2 * N_THREADS >= made);
	sleep_us(100000);
	assert_true(churn->counters[0] > 0);
	stop_churn(pid);
}

static void wait_forever(void *opaque, unsigned process, struct range range)
{
	(void)process;
	(void)range;
	while (!*(_Atomic bool *)opaque)
		sleep_us(1000);
}

/* One that calls exit is not gone before its memory was captured. */
static void test_exit_is_held(void **state)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	_cleanup_tracer_ struct tracer *tracer = NULL;
	_Atomic bool captured = false;
	struct tracer_holder holder = { wait_forever, (void *)&captured };
	uint64_t since;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		sleep_us(200000);
		_exit(7);
	}
	open_target(&target, pid);
	assert_int_equal(tracer_start(&tracer, &holder), 0);
	assert_int_equal(tracer_add(tracer, &target), 0);
	assert_int_equal(tracer_freeze(tracer, MAX_NS, MAX_NS, &since), 0);
	assert_int_equal(tracer_thaw_holding(tracer), 0);
	/* Not by waitpid(2): it would take the tracer's stops. */
	for (int i = 0; i < 50; i++) {
		sleep_us(10000);
		assert_true(pidfd_is_alive(target.pidfd));
	}
	captured = true;
	assert_int_equal(pidfd_wait_exit(target.pidfd, 5000), 0);
	tracer_let_go(tracer);
	waitpid(pid, NULL, 0);
}

/* A thread that waits for its vfork(2) is woken by nothing but SIGKILL. */
static void *sleep_deeply(void *data)
{
	pid_t pid = vfork();

	if (!pid) {
		struct timespec ts = { .tv_sec = *(const time_t *)data };

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		syscall(SYS_nanosleep, &ts, NULL);
		_exit(0);
	}
	return NULL;
}

/* A process of which a thread sleeps so for a time, its only one or, `runs`,
 * beside one that runs. */
static pid_t start_deep_sleeper(time_t seconds, bool runs)
{
	_Atomic bool *ready = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();

	if (!pid) {
		pthread_t thread;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (runs)
			pthread_create(&thread, NULL, sleep_deeply, &seconds);
		*ready = true;
		if (!runs)
			sleep_deeply(&seconds);
		for (;;)
			;
	}
	while (!*ready)
		sleep_us(100);
	munmap((void *)ready, PAGE_SIZE);
	/* Until it sleeps. */
	sleep_us(200000);
	return pid;
}

static void end_process(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int freeze_for(const struct target *target, uint64_t max_ns,
		      uint64_t patience_ns, uint64_t *since_ns)
{
	_cleanup_tracer_ struct tracer *tracer = NULL;
	int r;

	assert_int_equal(tracer_start(&tracer, NULL), 0);
	assert_int_equal(tracer_add(tracer, target), 0);
	r = tracer_freeze(tracer, max_ns, patience_ns, since_ns);
	if (!r)
		r = tracer_thaw(tracer);
	return r;
}

/* The thread sanitizer makes a fork(2) of vfork(2), whose caller sleeps deeply.
 */
#ifdef __SANITIZE_THREAD__
#define NEED_VFORK() skip()
#else
#define NEED_VFORK() ((void)0)
#endif

/* While nobody stands it waits for longer than the pause may be, and the pause
 * does not begin before somebody does. */
static void test_waiting_for_the_first_is_no_pause(void **state)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	uint64_t began_ns, since_ns;
	pid_t pid;

	(void)state;
	NEED_VFORK();
	pid = start_deep_sleeper(2, false);
	began_ns = now_ns();
	open_target(&target, pid);
	assert_int_equal(freeze_for(&target, 500000000, LONG_NS, &since_ns), 0);
	assert_true(since_ns - began_ns > 1000000000);
	end_process(pid);
}

static void test_patience_ends(void **state)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	pid_t pid;
	uint64_t since_ns;

	(void)state;
	NEED_VFORK();
	pid = start_deep_sleeper(60, false);
	open_target(&target, pid);
	assert_int_equal(freeze_for(&target, MAX_NS, 200000000, &since_ns),
			 -ETIMEDOUT);
	end_process(pid);
}

/* Here another stands meanwhile. */
static void test_a_sleeper_is_told_of(void **state)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	pid_t pid;
	uint64_t since_ns;

	(void)state;
	NEED_VFORK();
	pid = start_deep_sleeper(60, true);
	open_target(&target, pid);
	assert_int_equal(freeze_for(&target, 200000000, LONG_NS, &since_ns),
			 -ETIMEDOUT);
	end_process(pid);
}

static void pin_to(pid_t tid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	assert_int_equal(sched_setaffinity(tid, sizeof(set), &set), 0);
}

/* One of its threads, pinned, would run if it were let. */
struct starving {
	pid_t pid;
	_Atomic pid_t tid;
	_Atomic uint64_t counter;
};

static void *starve(void *data)
{
	struct starving *s = data;

	s->tid = gettid();
	for (;;)
		s->counter++;
	return NULL;
}

static struct starving *start_starving(void)
{
	struct starving *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	pid_t pid = fork();

	if (!pid) {
		pthread_t thread;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pthread_create(&thread, NULL, starve, s);
		for (;;)
			pause();
	}
	s->pid = pid;
	while (!s->counter)
		sleep_us(100);
	return s;
}

/* Takes a processor from whoever may not have more than what is left over. */
static pid_t start_hog(int cpu)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		setpriority(PRIO_PROCESS, 0, -20);
		for (;;)
			;
	}
	pin_to(pid, cpu);
	return pid;
}

/* One that can run but is given no processor is worth another attempt. */
static void test_a_starved_thread_is_told_of(void **state)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	const struct sched_param param = {};
	struct starving *s;
	uint64_t since_ns, counter;
	pid_t hog;
	int r;

	(void)state;
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
		print_message("one processor only\n");
		skip();
	}
	s = start_starving();
	open_target(&target, s->pid);
	pin_to(s->tid, 0);
	assert_int_equal(sched_setscheduler(s->tid, SCHED_IDLE, &param), 0);
	pin_to(0, 1);
	hog = start_hog(0);
	sleep_us(200000);
	/* Now and then it is given a little after all. */
	for (int i = 0; i < 20; i++) {
		r = freeze_for(&target, 30000000, LONG_NS, &since_ns);
		if (r)
			break;
	}
	assert_int_equal(r, -ETIME);
	end_process(hog);
	assert_int_equal(freeze_for(&target, MAX_NS, MAX_NS, &since_ns), 0);
	counter = s->counter;
	while (s->counter == counter)
		sleep_us(100);
	end_process(s->pid);
	munmap(s, sizeof(*s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_kinds),
		cmocka_unit_test(test_under_signals),
		cmocka_unit_test(test_confined),
		cmocka_unit_test(test_nobody_runs),
		cmocka_unit_test(test_unmaps_are_held),
		cmocka_unit_test(test_exit_is_held),
		cmocka_unit_test(test_waiting_for_the_first_is_no_pause),
		cmocka_unit_test(test_patience_ends),
		cmocka_unit_test(test_a_sleeper_is_told_of),
		cmocka_unit_test(test_a_starved_thread_is_told_of),
	};

	srand(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
