/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/watchdog.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "flow/guardian.h"
#include "sys/caps.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/procstat.h"
#include "sys/sched.h"

/* How often it looks, and how often who is idle has to show that he is there,
 * in the longest time that is allowed. */
#define LOOKS 16
#define BEATS 8

#define LOOK_MIN_NS 1000000
#define LOOK_MAX_NS 100000000

/* How long a dumper that is to give up may take to let the target go, in which
 * nothing is seen to happen, or in all. */
#define GRACE_NS     1000000000
#define GRACE_ALL_NS 10000000000
#define KILL_WAIT_MS 5000

struct look {
	struct watch *watch;
	int dumper; /* pidfd */
	uint64_t every_ns, at_ns;
	uint64_t seen_ns[WATCH_N_PLACES]; /* since_ns of the last look */
	uint64_t
		counted_ns[WATCH_N_PLACES]; /* for which that has not changed */
};

/*
 * Time counts as far as it was looked at. A look that comes late, because the
 * machine slept or the clock was set forward, counts as half of what is
 * allowed: one alone is never too much, while somebody who keeps all from
 * running, us too, is found out by the second.
 */
static uint64_t time_since_last(struct look *look)
{
	uint64_t now = now_ns(), last = look->at_ns;

	look->at_ns = now;
	return min_u64(now - last, look->watch->max_ns / 2);
}

/* The place where somebody has waited for longer than `limit_ns`, or than what
 * he said if that is 0; WATCH_N_PLACES: none. */
static enum watch_place find_stuck(struct look *look, uint64_t limit_ns)
{
	uint64_t passed_ns = time_since_last(look);
	enum watch_place stuck = WATCH_N_PLACES;

	for (int i = 0; i < WATCH_N_PLACES; i++) {
		uint64_t since = atomic_load(&look->watch->since_ns[i]);
		uint64_t limit =
			limit_ns ?: atomic_load(&look->watch->limit_ns[i]);

		if (since != look->seen_ns[i]) {
			look->seen_ns[i] = since;
			look->counted_ns[i] = 0;
			continue;
		}
		look->counted_ns[i] += passed_ns;
		if (since && look->counted_ns[i] >= limit &&
		    stuck == WATCH_N_PLACES)
			stuck = (enum watch_place)i;
	}
	return stuck;
}

static bool holds_anybody(const struct look *look)
{
	for (int i = 0; i < WATCH_N_PLACES; i++)
		if (atomic_load(&look->watch->since_ns[i]))
			return true;
	return false;
}

/* Until it is time to look again. False: the dumper is gone. */
static bool pause_looking(const struct look *look, uint64_t ns)
{
	int r = pidfd_wait_exit(look->dumper, (int)(ns / 1000000));

	/* What else may go wrong must not make it spin. */
	if (r && r != -ETIMEDOUT)
		usleep((useconds_t)(ns / 1000));
	return r != 0;
}

static bool is_stopped(pid_t pid)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	struct proc_stat stat;

	return proc_fd >= 0 && !procstat_read(proc_fd, 0, &stat) &&
	       (stat.state == 'T' || stat.state == 't');
}

static const char *explain(const struct watch *watch, enum watch_place place,
			   bool stopped)
{
	if (stopped)
		return "snapuffd was stopped by a signal";
	if (place != WATCH_PAUSE && atomic_load(&watch->n_without_buffer))
		return "the output takes no more data: its disk or its reader hangs, or is too slow";
	switch (place) {
	case WATCH_INFECTION:
		return "a thread that was to make the userfaultfd was not let go";
	case WATCH_PAUSE:
		return "the instant was not over";
	case WATCH_CALLS:
	case WATCH_CALL:
		return "a system call was held, and its memory not captured";
	case WATCH_CHILDREN:
		return "a child that it forked waits, and nothing gets on";
	default:
		return "snapuffd hangs, or gets no processor time";
	}
}

/* Has the dumper give up; wakes it, and a keeper, if they were stopped. */
static void tell(const struct look *look)
{
	pid_t keeper = atomic_load(&look->watch->keeper);

	if (keeper && atomic_load(&look->watch->since_ns[WATCH_INFECTION]))
		kill(keeper, SIGCONT);
	pidfd_kill(look->dumper, SIGTERM);
	pidfd_kill(look->dumper, SIGCONT);
}

static void end(const struct look *look)
{
	pid_t keeper = atomic_load(&look->watch->keeper);

	/* While it has the target it is alive, and this its number. */
	if (keeper && atomic_load(&look->watch->since_ns[WATCH_INFECTION]))
		kill(keeper, SIGKILL);
	pidfd_kill(look->dumper, SIGKILL);
	pidfd_wait_exit(look->dumper, KILL_WAIT_MS);
}

/* Whether it had to be killed. */
static bool make_it_let_go(struct look *look)
{
	uint64_t began_ns = now_ns();

	tell(look);
	while (pause_looking(look, LOOK_MAX_NS / 5) && holds_anybody(look)) {
		if (find_stuck(look, GRACE_NS) == WATCH_N_PLACES &&
		    now_ns() - began_ns < GRACE_ALL_NS)
			continue;
		end(look);
		return true;
	}
	return false;
}

static void give_up(struct look *look, enum watch_place place, pid_t dumper,
		    pid_t target)
{
	struct watch *watch = look->watch;
	uint64_t limit_ns = atomic_load(&watch->limit_ns[place]);
	/* As long as it is so. */
	const char *why = explain(watch, place, is_stopped(dumper));
	int on = WATCH_ON;
	bool killed;

	if (!atomic_compare_exchange_strong(&watch->state, &on, WATCH_TRIPPED))
		return;
	for (int i = 0; i < WATCH_N_PLACES; i++)
		look->counted_ns[i] = 0;
	killed = make_it_let_go(look);
	/* Only now: where that goes may hang, too. */
	log_error("pid %d: had to wait for %llu ms (--max-stall): %s; %s",
		  target, (unsigned long long)(limit_ns / 1000000), why,
		  killed ? "the dump was killed" : "the dump was given up");
}

static void watch_over(struct look *look, pid_t dumper, pid_t target)
{
	while (pause_looking(look, look->every_ns)) {
		enum watch_place place = find_stuck(look, 0);

		if (place == WATCH_N_PLACES)
			continue;
		give_up(look, place, dumper, target);
		return;
	}
}

static __attribute__((noreturn)) void be_watchdog(struct watch *watch,
						  int pidfd, pid_t dumper,
						  pid_t target)
{
	struct look look = {
		.watch = watch,
		.dumper = pidfd,
		.every_ns = min_u64(max_u64(watch->max_ns / LOOKS, LOOK_MIN_NS),
				    LOOK_MAX_NS),
		.at_ns = now_ns(),
	};

	guardian_begin("snapuffd-watch");
	sched_raise();
	/* The disk that hangs may be the one that it was loaded from. */
	mlockall(MCL_CURRENT | MCL_ONFAULT);
	caps_reduce(NULL, 0);
	watch_over(&look, dumper, target);
	_exit(0);
}

static struct watch *new_watch(uint64_t max_ns)
{
	struct watch *watch = mmap(NULL, sizeof(*watch), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (watch == MAP_FAILED)
		return NULL;
	watch->max_ns = max_ns;
	watch->beat_ns = max_u64(max_ns / BEATS, LOOK_MIN_NS);
	return watch;
}

int watchdog_start(struct watchdog *dog, pid_t target, uint64_t max_stall_ns)
{
	_cleanup_close_ int pidfd = -1;
	pid_t dumper = getpid();

	*dog = WATCHDOG_INIT;
	if (!max_stall_ns)
		return 0;
	pidfd = pidfd_from_pid(dumper);
	if (pidfd < 0)
		return log_errno(pidfd, "pidfd of itself: %m");
	dog->watch = new_watch(max_stall_ns);
	if (!dog->watch)
		return log_errno(-ENOMEM, "memory for the watchdog: %m");
	dog->pid = fork();
	if (dog->pid < 0)
		return log_errno(-errno, "fork: %m");
	if (!dog->pid)
		be_watchdog(dog->watch, pidfd, dumper, target);
	return 0;
}

bool watchdog_stop(struct watchdog *dog)
{
	int on = WATCH_ON;
	bool tripped;

	if (!dog->watch)
		return false;
	tripped = !atomic_compare_exchange_strong(&dog->watch->state, &on,
						  WATCH_OFF);
	if (dog->pid > 0) {
		if (!tripped)
			kill(dog->pid, SIGKILL);
		while (waitpid(dog->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	munmap(dog->watch, sizeof(*dog->watch));
	*dog = WATCHDOG_INIT;
	return tripped;
}
