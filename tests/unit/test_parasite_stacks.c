/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Targets whose main thread is not on its own stack, or has exited: the way
 * back then lies in a part of that stack where nobody ever was. Under load.
 */
#include "unit.h"
#include "victim.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/result.h"
#include "base/util.h"
#include "parasite/parasite.h"
#include "sys/procfs.h"
#include "sys/vmio.h"
#include "target/target.h"

#define ROUNDS 200
#define N_LOAD 3

static pid_t load[N_LOAD];

static int start_load(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_LOAD; i++) {
		load[i] = fork();
		if (!load[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (nice(5) == -1)
				_exit(1);
			for (;;)
				__asm__ volatile("");
		}
	}
	return 0;
}

static int stop_load(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_LOAD; i++) {
		kill(load[i], SIGKILL);
		waitpid(load[i], NULL, 0);
	}
	return 0;
}

/* All of the main thread's stack; to be freed. */
static uint8_t *copy_stack(struct victim *v, struct range *range)
{
	_cleanup_(proc_maps_deinit) struct proc_maps maps = { 0 };
	pid_t tid = atomic_load(&v->report->tid);
	uint8_t *copy;

	*range = (struct range){ 0 };
	assert_int_equal(procfs_read_maps(v->proc_fd, &maps), 0);
	for (size_t i = 0; i < maps.n_maps; i++)
		if (!strcmp(maps.maps[i].path, "[stack]"))
			*range = maps.maps[i].range;
	copy = malloc(range->end - range->start);
	assert_int_equal(vm_read(tid ? tid : v->pid, range->start, copy,
				 range->end - range->start),
			 0);
	return copy;
}

static void infect_and_cure(struct victim *v, int proc_fd, int dev_fd)
{
	_cleanup_close_ int uffd = -1;
	struct parasite *p;

	assert_int_equal(parasite_infect(&p, v->pid, proc_fd, v->pidfd), 0);
	assert_int_equal(parasite_make_uffd(p, dev_fd, &uffd), 0);
	assert_int_equal(parasite_cure(p), 0);
}

/* Nobody uses the main stack, so not a byte of it may differ. */
static void check_kind(const struct victim_kind *kind, unsigned traits)
{
	_cleanup_close_ int dev_fd =
		open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	_cleanup_close_ int pid_proc_fd = -1;
	_cleanup_free_ uint8_t *before = NULL;
	struct range range, range_now;
	struct victim v;

	victim_start(&v, kind, traits);
	pid_proc_fd = procfs_open(v.pid);
	before = copy_stack(&v, &range);
	for (unsigned i = 0; i < ROUNDS; i++) {
		_cleanup_free_ uint8_t *now = NULL;

		/* /proc/PID and a thread's own directory will do. */
		infect_and_cure(&v, i % 2 ? pid_proc_fd : v.proc_fd, dev_fd);
		victim_check(&v, kind->name);
		now = copy_stack(&v, &range_now);
		assert_memory_equal(&range, &range_now, sizeof(range));
		assert_memory_equal(before, now, range.end - range.start);
	}
	victim_stop(&v);
}

static void test_coroutine(void **state)
{
	(void)state;
	check_kind(&victim_coroutine, 0);
	check_kind(&victim_coroutine, VICTIM_ALTSTACK);
	check_kind(&victim_coroutine_poll, VICTIM_UNPRIVILEGED);
}

static void test_in_handler(void **state)
{
	(void)state;
	check_kind(&victim_in_handler, 0);
	/* The sanitizer makes calls of its own on a stack that is new to it. */
#ifndef __SANITIZE_ADDRESS__
	check_kind(&victim_in_handler, VICTIM_SECCOMP);
#endif
}

static void test_main_exited(void **state)
{
	(void)state;
	check_kind(&victim_main_exited, 0);
	check_kind(&victim_main_exited, VICTIM_UNPRIVILEGED);
}

/* The parasite can, capture cannot yet. */
static void test_target_without_main(void **state)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	struct victim v;

	(void)state;
	victim_start(&v, &victim_main_exited, 0);
	assert_int_equal(target_open(&target, v.pid), RESULT_UNSUPPORTED);
	victim_check(&v, "refused");
	victim_stop(&v);
}

static void test_refuse_used_stack(void **state)
{
	struct parasite *p = NULL;
	struct victim v;

	(void)state;
	victim_start(&v, &victim_used_stack, 0);
	assert_int_equal(parasite_infect(&p, v.pid, v.proc_fd, v.pidfd),
			 RESULT_UNSUPPORTED);
	assert_null(p);
	victim_check(&v, "no part of its stack is unused");
	victim_stop(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_coroutine),
		cmocka_unit_test(test_in_handler),
		cmocka_unit_test(test_main_exited),
		cmocka_unit_test(test_target_without_main),
		cmocka_unit_test(test_refuse_used_stack),
	};

	if (geteuid()) {
		puts("1..0 # SKIP needs root: other processes are traced");
		return 0;
	}
	return cmocka_run_group_tests_name("parasite stacks", tests, start_load,
					   stop_load);
}
