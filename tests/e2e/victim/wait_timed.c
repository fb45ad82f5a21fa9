/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_URING
#include <liburing.h>
#endif

#include "victim.h"

/*
 * A thread for each call that ends when its time is over. It must neither end
 * before nor start over.
 */
struct timed {
	const char *name;
	/* What the call returns, or -errno. */
	long (*block)(const struct timed *);
	long want;
	struct timespec time; /* relative */
	uint64_t elapsed_ns;
	long got;
	pthread_t thread;
};

static uint64_t timed_ms;

static long result(long value)
{
	return value < 0 ? -errno : value;
}

static struct timespec until(const struct timed *timed, clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	time.tv_sec += timed->time.tv_sec;
	time.tv_nsec += timed->time.tv_nsec;
	if (time.tv_nsec >= 1000000000) {
		time.tv_sec++;
		time.tv_nsec -= 1000000000;
	}
	return time;
}

static long block_nanosleep(const struct timed *timed)
{
	return result(nanosleep(&timed->time, NULL));
}

static long block_until(const struct timed *timed)
{
	struct timespec time = until(timed, CLOCK_MONOTONIC);

	return -clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static long block_poll(const struct timed *timed)
{
	(void)timed;
	return result(poll(NULL, 0, (int)timed_ms));
}

static long block_ppoll(const struct timed *timed)
{
	return result(ppoll(NULL, 0, &timed->time, NULL));
}

static long block_select(const struct timed *timed)
{
	struct timeval time = { timed->time.tv_sec,
				timed->time.tv_nsec / 1000 };

	return result(select(0, NULL, NULL, NULL, &time));
}

static long block_epoll(const struct timed *timed)
{
	struct epoll_event event;
	int fd = epoll_create1(EPOLL_CLOEXEC);

	(void)timed;
	return result(epoll_wait(fd, &event, 1, (int)timed_ms));
}

static long block_cond(const struct timed *timed)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	struct timespec time = until(timed, CLOCK_MONOTONIC);
	long r;

	pthread_mutex_lock(&mutex);
	r = -pthread_cond_clockwait(&cond, &mutex, CLOCK_MONOTONIC, &time);
	pthread_mutex_unlock(&mutex);
	return r;
}

static long block_futex(const struct timed *timed)
{
	unsigned int word = 0;

	return result(syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0,
			      &timed->time, NULL, 0));
}

static long block_sigtimedwait(const struct timed *timed)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	return result(sigtimedwait(&set, NULL, &timed->time));
}

static long block_semtimedop(const struct timed *timed)
{
	struct sembuf down = { 0, -1, 0 };
	int id = semget(IPC_PRIVATE, 1, 0600);
	long r = result(semtimedop(id, &down, 1, &timed->time));

	semctl(id, 0, IPC_RMID);
	return r;
}

static long block_recv(const struct timed *timed)
{
	struct timeval time = { timed->time.tv_sec,
				timed->time.tv_nsec / 1000 };
	int fds[2];
	char byte;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) ||
	    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)))
		return -1000;
	return result(recv(fds[0], &byte, 1, 0));
}

#ifdef WITH_URING
static long block_ring(const struct timed *timed)
{
	struct __kernel_timespec time = { timed->time.tv_sec,
					  timed->time.tv_nsec };
	struct io_uring_cqe *cqe;
	struct io_uring ring;

	if (io_uring_queue_init(4, &ring, 0))
		return -ETIME;
	return io_uring_wait_cqe_timeout(&ring, &cqe, &time);
}
#endif

static struct timed timed[] = {
	{ "nanosleep", block_nanosleep, 0 },
	{ "clock_nanosleep", block_until, 0 },
	{ "poll", block_poll, 0 },
	{ "ppoll", block_ppoll, 0 },
	{ "select", block_select, 0 },
	{ "epoll_wait", block_epoll, 0 },
	{ "cond_timedwait", block_cond, -ETIMEDOUT },
	{ "futex", block_futex, -ETIMEDOUT },
	{ "sigtimedwait", block_sigtimedwait, -EAGAIN },
	{ "semtimedop", block_semtimedop, -EAGAIN },
	{ "recv", block_recv, -EAGAIN },
#ifdef WITH_URING
	{ "io_uring", block_ring, -ETIME },
#endif
};

#define N_TIMED (sizeof(timed) / sizeof(timed[0]))

static void *run(void *argument)
{
	struct timed *self = argument;
	uint64_t start_ns = victim_now_ns();

	self->got = self->block(self);
	self->elapsed_ns = victim_now_ns() - start_ns;
	return NULL;
}

void timed_start(uint64_t ms)
{
	timed_ms = ms;
	for (size_t i = 0; i < N_TIMED; i++) {
		timed[i].time.tv_sec = (time_t)(ms / 1000);
		timed[i].time.tv_nsec = (long)(ms % 1000 * 1000000);
		timed[i].thread = victim_start(timed[i].name, run, &timed[i]);
	}
	usleep(100000);
}

void timed_report(void)
{
	for (size_t i = 0; i < N_TIMED; i++) {
		pthread_join(timed[i].thread, NULL);
		victim_say(
			"timed %s got=%ld want=%ld asked_ms=%lu elapsed_ms=%lu",
			timed[i].name, timed[i].got, timed[i].want, timed_ms,
			timed[i].elapsed_ns / 1000000);
	}
}
