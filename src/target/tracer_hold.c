/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/tracer_internal.h"

/*
 * Theory of operation. Userfaultfd tells of munmap(2) when the pages are gone.
 * So every thread is stopped at the entry of each of its system calls
 * (PTRACE_SYSCALL), and those that would take memory away wait there until it
 * has been captured. New threads are traced from their first instruction
 * (PTRACE_O_TRACECLONE); a forked child is let go at once, for it has memory of
 * its own.
 *
 * Captures are made by a thread beside this one, so that a large one keeps only
 * its own caller waiting. It wakes this one by a signal, again and again until
 * it is heard: one that came just before waitpid(2) would be lost.
 *
 * In the end nobody is interrupted: those that stand run on, and the exit of
 * the tracing thread detaches all threads wherever they are. One that has come
 * to a system-call stop just then goes on, since with PTRACE_O_TRACESYSGOOD the
 * kernel takes its code for no signal.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/util.h"
#include "sys/procsig.h"
#include "sys/procstat.h"
#include "target/restart.h"

#define WAKE_SIGNAL SIGURG /* ignored by default */

/* In the end: looks for threads that stand, until some have found none. */
#define QUIET_LOOKS 5
#define MAX_LOOKS   200
#define LOOK_NS	    100000

/* A call that waits for its capture. */
struct held {
	pid_t tid;
	int sig; /* to be delivered; 0: it is a system call */
	unsigned process;
	struct range range;
	bool done;
	struct held *next;
};

struct holding {
	struct tracer *tracer;
	pthread_t worker;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct held *list; /* the newest first */
	bool quit;
	bool heard; /* the tracing thread has looked at the list */
};

static struct timespec realtime_in(uint64_t ns)
{
	struct timespec at;

	clock_gettime(CLOCK_REALTIME, &at);
	ns += (uint64_t)at.tv_nsec;
	at.tv_sec += (time_t)(ns / 1000000000);
	at.tv_nsec = (long)(ns % 1000000000);
	return at;
}

struct timespec tracer_soon(void)
{
	return realtime_in(1000000);
}

void tracer_wake(struct tracer *tracer)
{
	pthread_kill(tracer->thread, WAKE_SIGNAL);
}

/* Under the lock. Where somebody watches, the tracing thread is woken now and
 * then to show that it is there. */
static void wait_for_work(struct holding *h)
{
	const struct watch *watch = h->tracer->holder.watch;
	struct timespec until;

	if (!watch) {
		pthread_cond_wait(&h->changed, &h->lock);
		return;
	}
	until = realtime_in(watch->beat_ns);
	if (pthread_cond_timedwait(&h->changed, &h->lock, &until) == ETIMEDOUT)
		tracer_wake(h->tracer);
}

static struct held *find_work(struct holding *h)
{
	struct held *work = NULL;

	/* The oldest is the last. */
	for (struct held *held = h->list; held; held = held->next)
		if (!held->done)
			work = held;
	return work;
}

static void *worker_main(void *data)
{
	struct holding *h = data;
	struct tracer_holder *holder = &h->tracer->holder;

	pthread_mutex_lock(&h->lock);
	while (!h->quit) {
		struct held *work = find_work(h);

		if (!work) {
			wait_for_work(h);
			continue;
		}
		pthread_mutex_unlock(&h->lock);
		INJECT_HERE("hold-capture");
		holder->capture(holder->opaque, work->process, work->range);
		INJECT_HERE("hold-capture-done");
		pthread_mutex_lock(&h->lock);
		work->done = true;
		h->heard = false;
		while (!h->heard && !h->quit) {
			struct timespec soon = tracer_soon();

			tracer_wake(h->tracer);
			pthread_cond_timedwait(&h->changed, &h->lock, &soon);
		}
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

static struct tracer_thread *find_thread(struct tracer *tracer, pid_t tid)
{
	for (size_t i = 0; i < tracer->n_threads; i++)
		if (tracer->threads[i].tid == tid)
			return &tracer->threads[i];
	return NULL;
}

static void resume(pid_t tid, int sig)
{
	ptrace_cont_to_syscall(tid, sig);
}

/* Those whose memory is safe go on. */
static void resume_captured(struct holding *h)
{
	struct held **at = &h->list;

	pthread_mutex_lock(&h->lock);
	while (*at) {
		struct held *held = *at;

		if (!held->done) {
			at = &held->next;
			continue;
		}
		resume(held->tid, held->sig);
		*at = held->next;
		free(held);
	}
	h->heard = true;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

static void hold(struct holding *h, const struct tracer_thread *thread, int sig,
		 struct range range)
{
	struct held *held = malloc(sizeof(*held));

	INJECT_HERE("hold-call");
	if (!held) {
		resume(thread->tid, sig);
		return;
	}
	*held = (struct held){ .tid = thread->tid,
			       .sig = sig,
			       .process = thread->process,
			       .range = range,
			       .next = h->list };
	pthread_mutex_lock(&h->lock);
	h->list = held;
	pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

static struct range from_to(uint64_t start, uint64_t len)
{
	uint64_t end = len > UINT64_MAX - start ? UINT64_MAX : start + len;

	return (struct range){ start, end };
}

/* The addresses that a system call is about to take away; empty: none. */
static struct range find_loss(uint64_t nr, const uint64_t *args)
{
	static const struct range none, all = { 0, UINT64_MAX };

	switch (nr) {
	case SYS_munmap:
		return from_to(args[0], args[1]);
	case SYS_mmap:
		return args[3] & MAP_FIXED ? from_to(args[0], args[1]) : none;
	case SYS_mremap:
		/* Of where it goes to, or where else the file is mapped. */
		if (args[3] & MREMAP_FIXED || !args[1])
			return all;
		if (args[3] & MREMAP_MAYMOVE || args[2] < args[1])
			return from_to(args[0], args[1]);
		return none;
	case SYS_brk:
		/* Up to the next mapping, which is far away. */
		return args[0] ? from_to(args[0], GIB) : none;
	case SYS_madvise:
		/* Userfaultfd tells of these in time, if nothing else does. */
		switch (args[2]) {
		case MADV_DONTNEED:
		case MADV_FREE:
		case MADV_REMOVE:
			return from_to(args[0], args[1]);
		default:
			return none;
		}
	case SYS_shmdt:
		return from_to(args[0], 1);
	/* Of which memory, the descriptor does not tell. */
	case SYS_ftruncate:
		return all;
	case SYS_fallocate:
		return args[1] & ~(uint64_t)FALLOC_FL_KEEP_SIZE ? all : none;
	case SYS_execve:
	case SYS_execveat:
	case SYS_exit_group:
		return all;
	default:
		return none;
	}
}

static void handle_syscall(struct holding *h,
			   const struct tracer_thread *thread)
{
	struct ptrace_call call;
	struct range loss = {};

	if (!ptrace_get_call(thread->tid, &call) && call.is_entry)
		loss = find_loss(call.nr, call.args);
	if (loss.start < loss.end)
		hold(h, thread, 0, loss);
	else
		resume(thread->tid, 0);
}

/* A signal that ends the process takes its memory away, too. */
static bool is_fatal(struct tracer *tracer, const struct tracer_thread *thread,
		     int sig)
{
	const struct target *target = tracer->processes[thread->process].target;
	struct procsig signals;

	switch (sig) {
	case SIGCHLD:
	case SIGCONT:
	case SIGURG:
	case SIGWINCH:
	case SIGSTOP:
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
		return false;
	default:
		return !procsig_read(target->proc_fd, thread->tid, &signals) &&
		       !((signals.caught | signals.ignored) >> (sig - 1) & 1);
	}
}

/* One that a traced thread has made. */
static void adopt(struct tracer *tracer, pid_t tid,
		  const struct ptrace_stop *stop)
{
	for (unsigned i = 0; i < tracer->n_processes; i++) {
		struct proc_stat stat;

		if (procstat_read(tracer->processes[i].target->proc_fd, tid,
				  &stat))
			continue;
		if (tracer_add_thread(tracer, i, tid))
			break;
		if (stop->kind == PTRACE_STOP_GROUP)
			ptrace_listen(tid);
		else
			resume(tid, 0);
		return;
	}
	ptrace_detach(tid, 0);
}

static void handle_stop(struct holding *h, pid_t tid, int status)
{
	struct tracer *tracer = h->tracer;
	struct tracer_thread *thread = find_thread(tracer, tid);
	struct ptrace_stop stop;

	ptrace_classify(status, &stop);
	if (stop.kind == PTRACE_STOP_GONE)
		return;
	if (!thread) {
		adopt(tracer, tid, &stop);
		return;
	}
	switch (stop.kind) {
	case PTRACE_STOP_SYSCALL:
		handle_syscall(h, thread);
		break;
	case PTRACE_STOP_SIGNAL:
		/* One that is ignored wakes it, since it is traced, and it must
		 * not see that. */
		restart_mend(tid);
		if (is_fatal(tracer, thread, stop.sig))
			hold(h, thread, stop.sig,
			     (struct range){ 0, UINT64_MAX });
		else
			resume(tid, stop.sig);
		break;
	case PTRACE_STOP_GROUP:
		ptrace_listen(tid);
		break;
	default:
		restart_mend(tid);
		resume(tid, 0);
	}
}

static int run_to_syscall(const struct tracer_thread *thread)
{
	int r = ptrace_set_options(thread->tid, PTRACE_O_TRACECLONE |
							PTRACE_O_TRACEFORK |
							PTRACE_O_TRACEVFORK);

	if (r)
		return r;
	return thread->stopped ? ptrace_listen(thread->tid)
			       : ptrace_cont_to_syscall(thread->tid, 0);
}

void tracer_begin_hold(struct tracer *tracer)
{
	INJECT_HERE("hold-begin");
	for (size_t i = 0; i < tracer->n_threads; i++) {
		const struct tracer_thread *thread = &tracer->threads[i];

		if (thread->stands && run_to_syscall(thread))
			ptrace_detach(thread->tid, 0);
	}
}

static void on_wake(int sig)
{
	(void)sig;
}

/* Its only use is to end waitpid(2), in this thread. */
static void allow_wake(void)
{
	struct sigaction action = { .sa_handler = on_wake };
	sigset_t set;

	sigaction(WAKE_SIGNAL, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, WAKE_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* One that has stopped goes on, to stop for nothing but signals. */
static void set_free(pid_t tid, int status)
{
	struct ptrace_stop stop;

	ptrace_classify(status, &stop);
	switch (stop.kind) {
	case PTRACE_STOP_GONE:
		break;
	case PTRACE_STOP_GROUP:
		ptrace_listen(tid);
		break;
	case PTRACE_STOP_SIGNAL:
		restart_mend(tid);
		ptrace_cont(tid, stop.sig);
		break;
	case PTRACE_STOP_EVENT:
		restart_mend(tid);
		ptrace_cont(tid, 0);
		break;
	default:
		ptrace_cont(tid, 0);
	}
}

/*
 * A thread that stands at the entry of a system call when its tracer exits goes
 * on as if a signal were pending: a call that waits would end with EINTR. So
 * nobody should stand there.
 */
static void set_all_free(void)
{
	for (unsigned quiet = 0, i = 0; quiet < QUIET_LOOKS && i < MAX_LOOKS;
	     i++) {
		int status;
		pid_t tid;

		quiet++;
		while ((tid = waitpid(-1, &status,
				      __WALL | __WNOTHREAD | WNOHANG)) > 0) {
			set_free(tid, status);
			quiet = 0;
		}
		nanosleep(&(struct timespec){ .tv_nsec = LOOK_NS }, NULL);
	}
}

/* Not detached: that sets them going as if a signal were pending. */
static void let_go_of_held(struct holding *h)
{
	while (h->list) {
		struct held *held = h->list;

		h->list = held->next;
		ptrace_cont(held->tid, held->sig);
		free(held);
	}
}

void tracer_hold(struct tracer *tracer)
{
	struct holding h = { .tracer = tracer };

	pthread_mutex_init(&h.lock, NULL);
	pthread_cond_init(&h.changed, NULL);
	if (INJECT("hold-start") ||
	    pthread_create(&h.worker, NULL, worker_main, &h)) {
		log_warning("calls that unmap memory cannot be held");
		set_all_free();
		watch_end(tracer->holder.watch, WATCH_CALLS);
		pthread_cond_destroy(&h.changed);
		pthread_mutex_destroy(&h.lock);
		return;
	}
	allow_wake();
	while (!atomic_load(&tracer->release)) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL | __WNOTHREAD);

		if (tid > 0)
			handle_stop(&h, tid, status);
		else if (errno == ECHILD)
			break;
		resume_captured(&h);
		watch_beat(tracer->holder.watch, WATCH_CALLS);
	}

	pthread_mutex_lock(&h.lock);
	h.quit = true;
	pthread_cond_broadcast(&h.changed);
	pthread_mutex_unlock(&h.lock);
	pthread_join(h.worker, NULL);
	INJECT_HERE("hold-let-go");
	let_go_of_held(&h);
	set_all_free();
	INJECT_HERE("hold-let-go-done");
	watch_end(tracer->holder.watch, WATCH_CALLS);
	pthread_cond_destroy(&h.changed);
	pthread_mutex_destroy(&h.lock);
}
