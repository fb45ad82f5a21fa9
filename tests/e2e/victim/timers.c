/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "victim.h"

/*
 * A thread that a signal hits every 5 ms while it reads a timerfd that expires
 * as often. No expiration may be lost: the clock says how many there were.
 */
#define PERIOD_NS 5000000UL

static atomic_ulong n_signals;
static atomic_ulong n_expired;
static uint64_t start_ns;

static void handle(int number)
{
	(void)number;
	atomic_fetch_add(&n_signals, 1);
}

static void *run(void *unused)
{
	struct itimerspec every = { { 0, PERIOD_NS }, { 0, PERIOD_NS } };
	struct itimerval often = { { 0, PERIOD_NS / 1000 },
				   { 0, PERIOD_NS / 1000 } };
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	uint64_t n;
	sigset_t set;

	(void)unused;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	start_ns = victim_now_ns();
	timerfd_settime(fd, 0, &every, NULL);
	for (;;) {
		if (read(fd, &n, sizeof(n)) != sizeof(n))
			victim_die("timers: read: %s", strerror(errno));
		atomic_fetch_add(&n_expired, n);
	}
}

void timers_start(void)
{
	struct sigaction action = { .sa_handler = handle,
				    .sa_flags = SA_RESTART };

	sigaction(SIGALRM, &action, NULL);
	victim_start("timers", run, NULL);
	while (atomic_load(&n_expired) < 5)
		usleep(1000);
}

void timers_report(void)
{
	uint64_t n, due;

	/* The thread may be late; what is lost, it never makes up for. */
	for (int i = 0; i < 400; i++) {
		n = atomic_load(&n_expired);
		due = (victim_now_ns() - start_ns) / PERIOD_NS;
		if (n + 2 >= due)
			break;
		usleep(PERIOD_NS / 1000 + 700);
	}
	victim_say("timers expired=%lu due=%lu signals=%lu", n, due,
		   atomic_load(&n_signals));
}
