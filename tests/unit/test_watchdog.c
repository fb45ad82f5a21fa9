/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * A dumper that is a process of the test's: it says that somebody waits, and
 * does this or that about it; how it ends shows what the watchdog did.
 */

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "unit.h"

#include "base/interrupt.h"
#include "base/util.h"
#include "flow/watchdog.h"

#define STALL_NS (400 * NS_PER_MS)

/* Exit codes of a dumper that was not killed. */
enum { QUIET = 10, TRIPPED, TOO_EARLY };

static void sleep_ns(uint64_t ns)
{
	struct timespec left = { .tv_sec = (time_t)(ns / NS_PER_S),
				 .tv_nsec = (long)(ns % NS_PER_S) };

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

typedef void (*life_fn)(struct watch *watch);

/* How it ended: an exit code, or minus the signal. */
static int live(life_fn life)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct watchdog dog;

		interrupt_install();
		if (watchdog_start(&dog, getpid(), STALL_NS))
			_exit(1);
		life(dog.watch);
		_exit(watchdog_stop(&dog) ? TRIPPED : QUIET);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Until it is told to give up; not before anybody may say so. */
static void wait_for_interrupt(struct watch *watch, enum watch_place place)
{
	uint64_t since = now_ns();

	watch_begin(watch, place);
	while (!interrupt_pending())
		sleep_ns(NS_PER_MS);
	if (now_ns() - since < STALL_NS * 3 / 4)
		_exit(TOO_EARLY);
	watch_end(watch, place);
}

static void nobody_waits(struct watch *watch)
{
	(void)watch;
	sleep_ns(4 * STALL_NS);
}

static void gets_on(struct watch *watch)
{
	watch_begin(watch, WATCH_FAULTS);
	for (int i = 0; i < 40; i++) {
		sleep_ns(STALL_NS / 10);
		watch_beat(watch, WATCH_FAULTS);
	}
	watch_end(watch, WATCH_FAULTS);
}

static void has_longer(struct watch *watch)
{
	watch_begin_long(watch, WATCH_PAUSE, 100 * STALL_NS);
	sleep_ns(4 * STALL_NS);
	watch_end(watch, WATCH_PAUSE);
}

static void gives_up_pause(struct watch *watch)
{
	wait_for_interrupt(watch, WATCH_PAUSE);
}

static void gives_up_scan(struct watch *watch)
{
	watch_begin(watch, WATCH_FAULTS);
	watch_end(watch, WATCH_FAULTS);
	wait_for_interrupt(watch, WATCH_SCAN);
}

static void is_stopped(struct watch *watch)
{
	watch_begin(watch, WATCH_FAULTS);
	raise(SIGSTOP);
	if (!interrupt_pending())
		_exit(TOO_EARLY);
	watch_end(watch, WATCH_FAULTS);
}

static void hangs(struct watch *watch)
{
	watch_begin(watch, WATCH_FAULTS);
	sleep_ns(600 * NS_PER_S);
}

static void test_left_alone(void **state)
{
	(void)state;
	assert_int_equal(live(nobody_waits), QUIET);
	assert_int_equal(live(gets_on), QUIET);
	assert_int_equal(live(has_longer), QUIET);
}

static void test_gives_up(void **state)
{
	(void)state;
	assert_int_equal(live(gives_up_pause), TRIPPED);
	assert_int_equal(live(gives_up_scan), TRIPPED);
	assert_int_equal(live(is_stopped), TRIPPED);
}

static void test_is_killed(void **state)
{
	(void)state;
	assert_int_equal(live(hangs), -SIGKILL);
}

static void test_off(void **state)
{
	struct watchdog dog;

	(void)state;
	assert_int_equal(watchdog_start(&dog, 1, 0), 0);
	assert_null(dog.watch);
	watch_begin(dog.watch, WATCH_PAUSE);
	watch_beat(dog.watch, WATCH_PAUSE);
	watch_end(dog.watch, WATCH_PAUSE);
	assert_int_equal(watch_beat_ms(dog.watch), -1);
	assert_false(watchdog_stop(&dog));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_gives_up),
		cmocka_unit_test(test_is_killed),
		cmocka_unit_test(test_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
