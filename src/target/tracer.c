/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/tracer_internal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/procstat.h"
#include "target/restart.h"

/* How long a failed freeze goes on to look after those that were told to stop
 * and have not yet. They run, so this costs the target nothing; but whoever
 * watches (--max-stall, 2 s) takes it for part of the pause. */
#define MEND_NS 1000000000

static void *tracer_main(void *data)
{
	struct tracer *tracer = data;

	pthread_mutex_lock(&tracer->lock);
	while (!tracer->quit) {
		if (tracer->holding) {
			pthread_mutex_unlock(&tracer->lock);
			tracer_hold(tracer);
			pthread_mutex_lock(&tracer->lock);
			tracer->holding = false;
			pthread_cond_broadcast(&tracer->changed);
			break;
		}
		if (!tracer->job) {
			pthread_cond_wait(&tracer->changed, &tracer->lock);
			continue;
		}
		tracer->result = tracer->job(tracer);
		tracer->job = NULL;
		pthread_cond_broadcast(&tracer->changed);
	}
	tracer->quit = true;
	pthread_mutex_unlock(&tracer->lock);
	return NULL;
}

/* Has the thread do it, and waits. */
static int run(struct tracer *tracer, job_fn job)
{
	int r;

	pthread_mutex_lock(&tracer->lock);
	if (tracer->quit) {
		pthread_mutex_unlock(&tracer->lock);
		return 0; /* it has let everybody go */
	}
	tracer->job = job;
	pthread_cond_broadcast(&tracer->changed);
	while (tracer->job)
		pthread_cond_wait(&tracer->changed, &tracer->lock);
	r = tracer->result;
	pthread_mutex_unlock(&tracer->lock);
	return r;
}

int tracer_start(struct tracer **out, const struct tracer_holder *holder)
{
	_cleanup_free_ struct tracer *tracer = calloc(1, sizeof(*tracer));
	sigset_t all, old;
	int r;

	if (!tracer)
		return -ENOMEM;
	if (holder)
		tracer->holder = *holder;
	pthread_mutex_init(&tracer->lock, NULL);
	pthread_cond_init(&tracer->changed, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = INJECT("tracer-start");
	if (!r)
		r = -pthread_create(&tracer->thread, NULL, tracer_main, tracer);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return log_errno(r, "cannot start the tracing thread: %m");
	*out = steal_ptr(tracer);
	return 0;
}

void tracer_let_go(struct tracer *tracer)
{
	if (tracer->joined)
		return;
	pthread_mutex_lock(&tracer->lock);
	tracer->quit = true;
	atomic_store(&tracer->release, true);
	pthread_cond_broadcast(&tracer->changed);
	while (tracer->holding) {
		struct timespec soon = tracer_soon();

		tracer_wake(tracer);
		pthread_cond_timedwait(&tracer->changed, &tracer->lock, &soon);
	}
	pthread_mutex_unlock(&tracer->lock);
	/* Its exit lets go of whatever it still traces. */
	pthread_join(tracer->thread, NULL);
	tracer->joined = true;
}

/* All threads that an earlier freeze has found. */
static void forget(struct tracer *tracer)
{
	for (size_t i = 0; i < tracer->n_threads; i++)
		free(tracer->threads[i].xstate);
	tracer->n_threads = 0;
	for (size_t i = 0; i < tracer->n_processes; i++) {
		free_ptr(&tracer->processes[i].tids);
		tracer->processes[i].n_tids = 0;
	}
}

struct tracer *tracer_free(struct tracer *tracer)
{
	if (!tracer)
		return NULL;
	tracer_let_go(tracer);
	forget(tracer);
	free(tracer->threads);
	free(tracer->processes);
	pthread_cond_destroy(&tracer->changed);
	pthread_mutex_destroy(&tracer->lock);
	free(tracer);
	return NULL;
}

int tracer_add(struct tracer *tracer, const struct target *target)
{
	struct process *processes = reallocarray(
		tracer->processes, tracer->n_processes + 1, sizeof(*processes));

	if (!processes)
		return -ENOMEM;
	tracer->processes = processes;
	processes[tracer->n_processes] = (struct process){ .target = target };
	return (int)tracer->n_processes++;
}

const struct tracer_thread *tracer_get_threads(const struct tracer *tracer,
					       size_t *n)
{
	*n = tracer->n_threads;
	return tracer->threads;
}

static int compare_tids(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return x < y ? -1 : x > y;
}

/* A thread that is about to be reaped can't be seized, and need not be. */
static bool is_leaving(const struct target *target, pid_t tid)
{
	struct proc_stat stat;
	int r = procstat_read(target->proc_fd, tid, &stat);

	return r == -ESRCH || (!r && (stat.state == 'Z' || stat.state == 'X'));
}

int tracer_add_thread(struct tracer *tracer, unsigned process, pid_t tid)
{
	struct tracer_thread *thread;

	if (tracer->n_threads == tracer->max_threads) {
		size_t max = tracer->max_threads * 2 + 16;
		struct tracer_thread *threads =
			reallocarray(tracer->threads, max, sizeof(*threads));

		if (!threads)
			return -ENOMEM;
		tracer->threads = threads;
		tracer->max_threads = max;
	}
	thread = &tracer->threads[tracer->n_threads];
	*thread = (struct tracer_thread){
		.tid = tid,
		.process = process,
		.xstate = malloc(TRACER_XSTATE_MAX),
	};
	if (!thread->xstate)
		return -ENOMEM;
	tracer->n_threads++;
	return 0;
}

static int seize(struct tracer *tracer, unsigned process, pid_t tid)
{
	const struct target *target = tracer->processes[process].target;
	int r = INJECT("freeze-seize") ?: ptrace_seize(tid, 0);

	if (!r) {
		r = tracer_add_thread(tracer, process, tid);
		return r ? log_errno(r, "pid %d: %m", target->pid) : 0;
	}
	if (r == -ESRCH || is_leaving(target, tid))
		return 0;
	if (r != -EPERM)
		return log_errno(r, "pid %d: PTRACE_SEIZE of thread %d: %m",
				 target->pid, tid);
	log_error(
		"pid %d: thread %d may not be traced: CAP_SYS_PTRACE is needed, and no debugger may be attached",
		target->pid, tid);
	return RESULT_UNSUPPORTED;
}

/* Seizes the threads that are not known yet; *n_new counts them. */
static int seize_new(struct tracer *tracer, unsigned number, size_t *n_new)
{
	struct process *process = &tracer->processes[number];
	const struct target *target = process->target;
	_cleanup_free_ pid_t *tids = NULL;
	size_t n;
	int r;

	r = procfs_read_threads(target->proc_fd, &tids, &n);
	if (r == -ESRCH)
		return log_errno(r, "pid %d: the target died", target->pid);
	if (r)
		return log_errno(r, "pid %d: its threads: %m", target->pid);
	qsort(tids, n, sizeof(*tids), compare_tids);
	r = INJECT("freeze-list");
	for (size_t i = 0; !r && i < n; i++) {
		if (process->n_tids &&
		    bsearch(&tids[i], process->tids, process->n_tids,
			    sizeof(*tids), compare_tids))
			continue;
		++*n_new;
		r = seize(tracer, number, tids[i]);
	}
	free(process->tids);
	process->tids = steal_ptr(tids);
	process->n_tids = n;
	return r;
}

static int seize_all_new(struct tracer *tracer, size_t *n_new)
{
	int r = 0;

	*n_new = 0;
	for (unsigned i = 0; !r && i < tracer->n_processes; i++)
		r = seize_new(tracer, i, n_new);
	return r;
}

/* In the freeze: what is not read here will be gone. */
static int read_thread(struct tracer *tracer, struct tracer_thread *thread)
{
	pid_t tid = thread->tid;
	struct user_regs_struct regs;
	int r;

	if (!thread->stands)
		return 0;
	r = INJECT("freeze-regs") ?: ptrace_get_regs(tid, &thread->regs);
	if (r == -ENOEXEC) {
		log_error(
			"pid %d: thread %d runs 32-bit code; only 64-bit programs can be dumped",
			tracer->processes[thread->process].target->pid, tid);
		return RESULT_UNSUPPORTED;
	}
	regs = thread->regs;
	if (!r && restart_eintr(&regs))
		r = ptrace_set_regs(tid, &regs);
	thread->xstate_len = TRACER_XSTATE_MAX;
	INJECT_INTO(r, "freeze-xstate");
	if (!r)
		r = ptrace_get_xstate(tid, thread->xstate, &thread->xstate_len);
	if (!r)
		r = ptrace_get_sigmask(tid, &thread->sigblocked);
	if (!r)
		r = ptrace_get_pending(tid, &thread->sigpending);
	/* Killed where it stood. */
	if (r == -ESRCH) {
		thread->stands = false;
		return 0;
	}
	return r ? log_errno(r, "thread %d: reading its registers: %m", tid)
		 : 0;
}

/* Lets go one that stands and is of no use; it does not see that it stood. */
static void leave(pid_t tid, const struct ptrace_stop *stop)
{
	if (stop->kind == PTRACE_STOP_GONE)
		return;
	restart_mend(tid);
	ptrace_detach(tid, stop->kind == PTRACE_STOP_SIGNAL ? stop->sig : 0);
}

/* Hands on the signals that arrive before it stops for us. -EAGAIN: it has not
 * yet. */
static int look_for_stop(struct tracer *tracer, struct tracer_thread *thread)
{
	struct ptrace_stop stop;
	int r;

	for (;;) {
		r = ptrace_look(thread->tid, &stop);
		if (r)
			break;
		r = INJECT("freeze-wait-done");
		if (r) {
			leave(thread->tid, &stop);
			break;
		}
		switch (stop.kind) {
		case PTRACE_STOP_GONE:
			return 0;
		case PTRACE_STOP_EVENT:
		case PTRACE_STOP_GROUP:
			thread->stands = true;
			thread->stopped = stop.kind == PTRACE_STOP_GROUP;
			/* At once: if we are killed, it has what it needs. */
			r = read_thread(tracer, thread);
			if (r)
				restart_mend(thread->tid);
			return r;
		case PTRACE_STOP_SIGNAL:
			r = restart_pass_on(thread->tid, stop.sig);
			break;
		default:
			r = ptrace_cont(thread->tid, 0);
		}
		if (r)
			break;
	}
	if (r == -ESRCH)
		return 0;
	return r == -EAGAIN ? r
			    : log_errno(r, "thread %d: stopping it: %m",
					thread->tid);
}

/* Looks once at each of *n threads; those that have not stopped are left. */
static int look_for_stops(struct tracer *tracer, size_t *late, size_t *n)
{
	size_t n_late = 0;

	for (size_t i = 0; i < *n; i++) {
		struct tracer_thread *thread = &tracer->threads[late[i]];
		int r = look_for_stop(tracer, thread);

		if (r == -EAGAIN)
			late[n_late++] = late[i];
		else if (r)
			return r;
		tracer->somebody_stands |= thread->stands;
	}
	*n = n_late;
	return 0;
}

/*
 * Until somebody stands there is no pause, and no harm in waiting. A look that
 * comes late since this thread had no processor itself is the last one, not
 * none.
 */
static int wait_for_stops(struct tracer *tracer, size_t first)
{
	size_t n = tracer->n_threads - first, n_before;
	_cleanup_free_ size_t *late = calloc(n + 1, sizeof(*late));
	unsigned n_looks = 0;
	int r;

	if (!late)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		late[i] = first + i;
	for (;;) {
		uint64_t look_ns = now_ns(), limit_ns;

		if (!tracer->somebody_stands)
			tracer->since_ns = look_ns;
		n_before = n;
		r = look_for_stops(tracer, late, &n);
		if (r || !n)
			return r;
		if (interrupt_pending())
			return -EINTR;
		limit_ns = tracer->somebody_stands
				   ? tracer->since_ns + tracer->max_ns
				   : tracer->began_ns + tracer->patience_ns;
		if (look_ns >= limit_ns)
			return tracer_say_late(tracer, late, n,
					       (tracer->somebody_stands
							? tracer->max_ns
							: tracer->patience_ns) /
						       1000000);
		if (n < n_before)
			n_looks = 0;
		ptrace_wait_a_little(&n_looks);
	}
}

static void detach_standing(const struct tracer *tracer)
{
	for (size_t i = 0; i < tracer->n_threads; i++)
		if (tracer->threads[i].stands)
			ptrace_detach(tracer->threads[i].tid, 0);
}

/*
 * The freeze has failed. Who stands is let go first. Those that were not waited
 * for stop soon, or when they get a processor; they, too, must not see why. Who
 * is gone, or let go already, gives an error.
 */
static void mend_the_rest(struct tracer *tracer, size_t first)
{
	uint64_t deadline = now_ns() + MEND_NS;
	unsigned n_looks = 0;
	bool more;

	detach_standing(tracer);
	do {
		more = false;
		for (size_t i = first; i < tracer->n_threads; i++) {
			pid_t tid = tracer->threads[i].tid;
			struct ptrace_stop stop;
			int r = ptrace_look(tid, &stop);

			if (!r)
				leave(tid, &stop);
			more |= r == -EAGAIN;
		}
		if (more)
			ptrace_wait_a_little(&n_looks);
	} while (more && now_ns() < deadline);
}

static int stop_from(struct tracer *tracer, size_t first)
{
	int r;

	for (size_t i = first; i < tracer->n_threads; i++)
		ptrace_interrupt(tracer->threads[i].tid);
	r = INJECT("freeze-stop-done") ?: wait_for_stops(tracer, first);
	if (r)
		mend_the_rest(tracer, first);
	return r;
}

static void let_go(struct tracer *tracer)
{
	INJECT_HERE("thaw");
	detach_standing(tracer);
	INJECT_HERE("thaw-done");
}

static int stop_all(struct tracer *tracer)
{
	size_t first = 0, n_new;
	int r = seize_all_new(tracer, &n_new);

	tracer->somebody_stands = false;
	tracer->since_ns = tracer->began_ns = now_ns();
	/* Until nobody is left who could have made another thread. */
	while (!r && n_new) {
		r = stop_from(tracer, first);
		first = tracer->n_threads;
		if (!r)
			r = seize_all_new(tracer, &n_new);
	}
	return r;
}

static int freeze(struct tracer *tracer)
{
	int r;

	forget(tracer);
	/* Whoever stands waits for this thread; until the thaw. */
	tracer->before = sched_raise();
	r = stop_all(tracer);
	INJECT_INTO(r, "freeze-done");
	if (!r)
		return 0;
	let_go(tracer);
	/* Its exit lets go of those that have not stopped. */
	tracer->quit = true;
	return r;
}

int tracer_freeze(struct tracer *tracer, uint64_t max_ns, uint64_t patience_ns,
		  uint64_t *since_ns)
{
	int r;

	tracer->max_ns = max_ns;
	tracer->patience_ns = patience_ns;
	r = run(tracer, freeze);
	*since_ns = tracer->since_ns;
	return r;
}

static int thaw(struct tracer *tracer)
{
	let_go(tracer);
	sched_restore(&tracer->before);
	return 0;
}

static int thaw_holding(struct tracer *tracer)
{
	watch_begin(tracer->holder.watch, WATCH_CALLS);
	tracer_begin_hold(tracer);
	tracer->holding = true;
	sched_restore(&tracer->before);
	return 0;
}

int tracer_thaw_holding(struct tracer *tracer)
{
	return run(tracer, thaw_holding);
}

int tracer_thaw(struct tracer *tracer)
{
	return run(tracer, thaw);
}
