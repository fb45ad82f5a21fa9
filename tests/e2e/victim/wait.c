/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef WITH_URING
#include <liburing.h>
#endif

#include "victim.h"

/*
 * A thread for each call that can wait without end. None of them may return
 * before wait_wake() does what it waits for, and then with what it was given.
 */
struct wait {
	const char *name;
	/* What the call returns, or -errno. */
	long (*block)(struct wait *);
	void (*wake)(struct wait *);
	long want;
	/* Made before the thread starts. */
	void (*prepare)(struct wait *);
	int fds[2];
	unsigned int word;
	pid_t tid;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	void *more;
	long got;
	atomic_bool done;
};

static long result(long value)
{
	return value < 0 ? -errno : value;
}

static long read_byte(int fd)
{
	unsigned char byte = 0;
	long r = result(read(fd, &byte, 1));

	return r == 1 ? 100 + byte : r;
}

static void make_pipe(struct wait *wait)
{
	if (pipe2(wait->fds, O_CLOEXEC))
		abort();
}

static void make_pair(struct wait *wait)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, wait->fds))
		abort();
}

static void write_byte(struct wait *wait)
{
	if (write(wait->fds[1], "\7", 1) != 1)
		abort();
}

static long block_read(struct wait *wait)
{
	return read_byte(wait->fds[0]);
}

static long block_recv(struct wait *wait)
{
	unsigned char byte = 0;
	long r = result(recv(wait->fds[0], &byte, 1, 0));

	return r == 1 ? 100 + byte : r;
}

static long block_poll(struct wait *wait)
{
	struct pollfd poll_fd = { .fd = wait->fds[0], .events = POLLIN };
	long r = result(poll(&poll_fd, 1, -1));

	return r == 1 ? read_byte(wait->fds[0]) : r;
}

static long block_ppoll(struct wait *wait)
{
	struct pollfd poll_fd = { .fd = wait->fds[0], .events = POLLIN };
	sigset_t mask, now;
	long r;

	sigfillset(&mask);
	sigdelset(&mask, SIGUSR2);
	r = result(ppoll(&poll_fd, 1, NULL, &mask));
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	if (!sigismember(&now, SIGUSR2))
		return -1000; /* the mask of the call was left to the thread */
	return r == 1 ? read_byte(wait->fds[0]) : r;
}

static long block_select(struct wait *wait)
{
	fd_set set;
	long r;

	FD_ZERO(&set);
	FD_SET(wait->fds[0], &set);
	r = result(select(wait->fds[0] + 1, &set, NULL, NULL, NULL));
	return r == 1 ? read_byte(wait->fds[0]) : r;
}

static long block_epoll(struct wait *wait)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 42 };
	int fd = epoll_create1(EPOLL_CLOEXEC);
	long r;

	if (epoll_ctl(fd, EPOLL_CTL_ADD, wait->fds[0], &event))
		abort();
	r = result(epoll_wait(fd, &event, 1, -1));
	close(fd);
	return r == 1 ? read_byte(wait->fds[0]) : r;
}

static void make_listener(struct wait *wait)
{
	wait->fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	wait->fds[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* With a name that the kernel chooses. */
	if (bind(wait->fds[0], &(struct sockaddr){ AF_UNIX, "" },
		 sizeof(sa_family_t)) ||
	    listen(wait->fds[0], 1))
		abort();
}

static long block_accept(struct wait *wait)
{
	long r = result(accept(wait->fds[0], NULL, NULL));

	if (r < 0)
		return r;
	close((int)r);
	return 1;
}

static void wake_accept(struct wait *wait)
{
	struct sockaddr_storage name;
	socklen_t len = sizeof(name);

	if (getsockname(wait->fds[0], (struct sockaddr *)&name, &len) ||
	    connect(wait->fds[1], (struct sockaddr *)&name, len))
		abort();
}

static long block_cond(struct wait *wait)
{
	long r = 0;

	pthread_mutex_lock(&wait->mutex);
	while (r == 0 && wait->word == 0)
		r = -pthread_cond_wait(&wait->cond, &wait->mutex);
	pthread_mutex_unlock(&wait->mutex);
	return r;
}

static void wake_cond(struct wait *wait)
{
	pthread_mutex_lock(&wait->mutex);
	wait->word = 1;
	pthread_cond_signal(&wait->cond);
	pthread_mutex_unlock(&wait->mutex);
}

static long block_futex(struct wait *wait)
{
	return result(syscall(SYS_futex, &wait->word, FUTEX_WAIT_PRIVATE, 0,
			      NULL, NULL, 0));
}

static void wake_futex(struct wait *wait)
{
	syscall(SYS_futex, &wait->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static long block_sem(struct wait *wait)
{
	(void)wait;
	return result(sem_wait(wait->more));
}

static void make_sem(struct wait *wait)
{
	wait->more = calloc(1, sizeof(sem_t));
	sem_init(wait->more, 0, 0);
}

static void wake_sem(struct wait *wait)
{
	sem_post(wait->more);
}

static void make_child(struct wait *wait)
{
	wait->fds[0] = fork();
	if (wait->fds[0] == 0) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		for (;;)
			pause();
	}
}

static long block_waitpid(struct wait *wait)
{
	int status = 0;
	long r = result(waitpid(wait->fds[0], &status, WUNTRACED));

	return r == wait->fds[0] && WIFSIGNALED(status) ? WTERMSIG(status) : r;
}

static void wake_child(struct wait *wait)
{
	kill(wait->fds[0], SIGTERM);
}

static long block_sigwait(struct wait *wait)
{
	sigset_t set;
	siginfo_t info;
	long r;

	(void)wait;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	r = result(sigwaitinfo(&set, &info));
	return r == SIGUSR1 ? 100 + info.si_value.sival_int : r;
}

static void wake_signal(struct wait *wait)
{
	pthread_sigqueue(wait->thread, SIGUSR1, (union sigval){ 7 });
}

static atomic_int n_handled;

static void handle(int number)
{
	(void)number;
	atomic_fetch_add(&n_handled, 1);
}

static void make_handler(struct wait *wait)
{
	(void)wait;
	sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = handle }, NULL);
}

/* It ends with EINTR, but only when the signal was handled. */
static long block_sigsuspend(struct wait *wait)
{
	sigset_t mask;
	long r;

	(void)wait;
	sigfillset(&mask);
	sigdelset(&mask, SIGUSR2);
	r = result(sigsuspend(&mask));
	return r == -EINTR && atomic_load(&n_handled) == 1 ? 1 : r;
}

static void wake_sigsuspend(struct wait *wait)
{
	pthread_kill(wait->thread, SIGUSR2);
}

static void make_signalfd(struct wait *wait)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	wait->fds[0] = signalfd(-1, &set, SFD_CLOEXEC);
}

static long block_signalfd(struct wait *wait)
{
	struct signalfd_siginfo info = { 0 };
	long r = result(read(wait->fds[0], &info, sizeof(info)));

	return r == sizeof(info) ? 100 + info.ssi_int : r;
}

static void make_semop(struct wait *wait)
{
	wait->fds[0] = semget(IPC_PRIVATE, 1, 0600);
	if (wait->fds[0] < 0)
		abort();
}

static long block_semop(struct wait *wait)
{
	struct sembuf down = { 0, -1, 0 };
	long r = result(semop(wait->fds[0], &down, 1));

	semctl(wait->fds[0], 0, IPC_RMID);
	return r;
}

static void wake_semop(struct wait *wait)
{
	struct sembuf up = { 0, 1, 0 };

	semop(wait->fds[0], &up, 1);
}

struct message {
	long type;
	char text[4];
};

static void make_msg(struct wait *wait)
{
	wait->fds[0] = msgget(IPC_PRIVATE, 0600);
	if (wait->fds[0] < 0)
		abort();
}

static long block_msgrcv(struct wait *wait)
{
	struct message message = { 0 };
	long r = result(
		msgrcv(wait->fds[0], &message, sizeof(message.text), 0, 0));

	msgctl(wait->fds[0], IPC_RMID, NULL);
	return r == 4 ? 100 + message.text[0] : r;
}

static void wake_msg(struct wait *wait)
{
	struct message message = { 1, { 7 } };

	msgsnd(wait->fds[0], &message, sizeof(message.text), 0);
}

static void make_mq(struct wait *wait)
{
	struct mq_attr attr = { .mq_maxmsg = 1, .mq_msgsize = 4 };
	char name[64];

	snprintf(name, sizeof(name), "/victim-%d", getpid());
	wait->fds[0] = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	if (wait->fds[0] < 0)
		abort();
	mq_unlink(name);
}

static long block_mq(struct wait *wait)
{
	char text[4];
	long r = result(mq_receive(wait->fds[0], text, sizeof(text), NULL));

	return r == 4 ? 100 + text[0] : r;
}

static void wake_mq(struct wait *wait)
{
	mq_send(wait->fds[0], "\7\0\0", 4, 0);
}

static void make_inotify(struct wait *wait)
{
	char *path = malloc(64);

	snprintf(path, 64, "/tmp/victim-XXXXXX");
	wait->fds[1] = mkstemp(path);
	wait->fds[0] = inotify_init1(IN_CLOEXEC);
	if (inotify_add_watch(wait->fds[0], path, IN_MODIFY) < 0)
		abort();
	unlink(path);
	free(path);
}

static long block_inotify(struct wait *wait)
{
	struct inotify_event event;
	long r = result(read(wait->fds[0], &event, sizeof(event)));

	return r == sizeof(event) && event.mask == IN_MODIFY ? 1 : r;
}

/* Locks of open file descriptions exclude each other in one process too. */
static void make_lock(struct wait *wait)
{
	char path[64];

	wait->fds[0] = memfd_create("victim-lock", MFD_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", wait->fds[0]);
	wait->fds[1] = open(path, O_RDWR | O_CLOEXEC);
	if (wait->fds[1] < 0 || flock(wait->fds[1], LOCK_EX))
		abort();
}

static long block_flock(struct wait *wait)
{
	return result(flock(wait->fds[0], LOCK_EX));
}

static void wake_flock(struct wait *wait)
{
	flock(wait->fds[1], LOCK_UN);
}

static void make_eventfd(struct wait *wait)
{
	wait->fds[0] = eventfd(0, EFD_CLOEXEC);
}

static long block_eventfd(struct wait *wait)
{
	eventfd_t value = 0;
	long r = result(eventfd_read(wait->fds[0], &value));

	return r == 0 ? (long)value : r;
}

static void wake_eventfd(struct wait *wait)
{
	eventfd_write(wait->fds[0], 7);
}

/* A pipe that is full. */
static void make_full(struct wait *wait)
{
	static const char some[4096];

	make_pipe(wait);
	fcntl(wait->fds[1], F_SETPIPE_SZ, 4096);
	if (write(wait->fds[1], some, sizeof(some)) != sizeof(some))
		abort();
}

static long block_write(struct wait *wait)
{
	return result(write(wait->fds[1], "\7", 1));
}

static void wake_write(struct wait *wait)
{
	char some[4096];

	if (read(wait->fds[0], some, sizeof(some)) != sizeof(some))
		abort();
}

#ifdef WITH_URING
static void make_ring(struct wait *wait)
{
	struct io_uring *ring = calloc(1, sizeof(*ring));
	struct io_uring_sqe *sqe;

	make_pipe(wait);
	if (io_uring_queue_init(4, ring, 0)) {
		victim_say("wait io_uring none");
		free(ring);
		return;
	}
	wait->more = ring;
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_read(sqe, wait->fds[0], &wait->word, 1, 0);
	io_uring_submit(ring);
}

static long block_ring(struct wait *wait)
{
	struct io_uring_cqe *cqe = NULL;
	long r = io_uring_wait_cqe(wait->more, &cqe);

	if (r < 0)
		return r;
	r = cqe->res;
	io_uring_cqe_seen(wait->more, cqe);
	return r == 1 ? 100 + (long)wait->word : r;
}
#endif

static struct wait waits[] = {
	{ "read", block_read, write_byte, 107, make_pipe },
	{ "recv", block_recv, write_byte, 107, make_pair },
	{ "poll", block_poll, write_byte, 107, make_pipe },
	{ "ppoll", block_ppoll, write_byte, 107, make_pipe },
	{ "select", block_select, write_byte, 107, make_pipe },
	{ "epoll_wait", block_epoll, write_byte, 107, make_pipe },
	{ "accept", block_accept, wake_accept, 1, make_listener },
	{ "cond_wait", block_cond, wake_cond, 0 },
	{ "futex", block_futex, wake_futex, 0 },
	{ "sem_wait", block_sem, wake_sem, 0, make_sem },
	{ "waitpid", block_waitpid, wake_child, SIGTERM, make_child },
	{ "sigwaitinfo", block_sigwait, wake_signal, 107 },
	{ "sigsuspend", block_sigsuspend, wake_sigsuspend, 1, make_handler },
	{ "signalfd", block_signalfd, wake_signal, 107, make_signalfd },
	{ "semop", block_semop, wake_semop, 0, make_semop },
	{ "msgrcv", block_msgrcv, wake_msg, 107, make_msg },
	{ "mq_receive", block_mq, wake_mq, 107, make_mq },
	{ "inotify", block_inotify, write_byte, 1, make_inotify },
	{ "flock", block_flock, wake_flock, 0, make_lock },
	{ "eventfd", block_eventfd, wake_eventfd, 7, make_eventfd },
	{ "write", block_write, wake_write, 1, make_full },
#ifdef WITH_URING
	{ "io_uring", block_ring, write_byte, 107, make_ring },
#endif
};

#define N_WAITS (sizeof(waits) / sizeof(waits[0]))

static void *run(void *argument)
{
	struct wait *wait = argument;

	wait->tid = (pid_t)syscall(SYS_gettid);
	wait->got = wait->block(wait);
	atomic_store(&wait->done, true);
	return NULL;
}

void wait_start(void)
{
	/* Children first: there are no threads of ours to be copied. */
	for (size_t i = 0; i < N_WAITS; i++) {
		pthread_mutex_init(&waits[i].mutex, NULL);
		pthread_cond_init(&waits[i].cond, NULL);
		if (waits[i].prepare)
			waits[i].prepare(&waits[i]);
	}
	for (size_t i = 0; i < N_WAITS; i++)
		waits[i].thread = victim_start(waits[i].name, run, &waits[i]);
	usleep(200000);
}

void wait_wake(void)
{
	for (size_t i = 0; i < N_WAITS; i++) {
		struct wait *wait = &waits[i];
		bool early = atomic_load(&wait->done);

		if (!early) {
			wait->wake(wait);
			for (int n = 0; n < 1000 && !atomic_load(&wait->done);
			     n++)
				usleep(5000);
		}
		if (!atomic_load(&wait->done))
			victim_say("wait %s lost", wait->name);
		else
			victim_say("wait %s %s got=%ld want=%ld", wait->name,
				   early ? "early" : "woken", wait->got,
				   wait->want);
	}
}
