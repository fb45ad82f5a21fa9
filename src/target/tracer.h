/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Stops all threads of some processes at one instant, reads their registers,
 * lets them run on. No register is changed but for a system call that would end
 * with EINTR because of the stop.
 *
 *	tracer_start
 *	tracer_add…		the processes; nothing is touched
 *	tracer_freeze		from here on every thread stands
 *	tracer_thaw		they run on, untraced; freeze them again at will
 *	tracer_let_go		untraced
 *	tracer_free		at any point: as above
 *
 * ptrace(2) binds a tracee to the thread that seized it, and a thread that does
 * not stop is let go only by the exit of its tracer. So all of it is done by a
 * thread of our own; and if we are killed, the kernel lets everybody run.
 *
 * Functions are called from one thread. Errors are logged with their pid:
 * RESULT_UNSUPPORTED for a process that may not be traced, -ETIMEDOUT for one
 * of which a thread sleeps and does not stop in time, -ETIME where those that
 * did not stop could run and had no processor: another attempt may do, -ESRCH
 * for one that is gone, -EINTR when the user asked for an end, -errno.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/watch.h"
#include "sys/ptrace.h"
#include "target/target.h"

/* The largest XSAVE area; AMX makes it 11008 bytes. */
#define TRACER_XSTATE_MAX 16384

/* A thread as it stood. */
struct tracer_thread {
	pid_t tid;
	unsigned process; /* the number that tracer_add() returned */
	struct user_regs_struct regs;
	uint8_t *xstate; /* NT_X86_XSTATE */
	size_t xstate_len;
	uint64_t sigpending, sigblocked; /* bit n - 1 is signal n */
	bool stands;
	bool stopped; /* by a signal: it stays so */
};

struct tracer;

/*
 * Holds system calls that would take memory away, while the processes run:
 * munmap and its like, exec, exit. Each stops at its entry until capture() has
 * returned, which gets the addresses that are about to go. It is called by one
 * thread of the tracer's own.
 *
 * Every system call of the processes then costs two stops.
 */
struct tracer_holder {
	void (*capture)(void *opaque, unsigned process, struct range range);
	void *opaque;
	struct watch *watch; /* who keeps calls waiting; may be NULL */
};

/* Starts the thread, with the caller's capabilities. `holder` may be NULL: no
 * call is held. */
int tracer_start(struct tracer **out, const struct tracer_holder *holder);
struct tracer *tracer_free(struct tracer *tracer);

static inline void tracer_freep(struct tracer **tracer)
{
	*tracer = tracer_free(*tracer);
}

#define _cleanup_tracer_ _cleanup_(tracer_freep)

/* The target must stay open. Returns its number, from 0 on, or -errno. */
int tracer_add(struct tracer *tracer, const struct target *target);

/* While none stands, nobody is harmed by waiting. */
#define TRACER_PATIENCE_NS 10000000000

/*
 * Stops all threads of all processes, those that are made meanwhile too, and
 * reads what there is to read; what another freeze had read is forgotten. Gives
 * up, letting them all run, `max_ns` after the first of them has stopped, or
 * `patience_ns` after the call when none has. `since_ns` is when the first one
 * may have stopped (CLOCK_MONOTONIC).
 */
int tracer_freeze(struct tracer *tracer, uint64_t max_ns, uint64_t patience_ns,
		  uint64_t *since_ns);

/* What was read in the freeze; until tracer_free(). */
const struct tracer_thread *tracer_get_threads(const struct tracer *tracer,
					       size_t *n);

/* They run on. 0, also when a process died meanwhile; or -errno. */
int tracer_thaw(struct tracer *tracer);

/* The same, but calls are held, by the holder that was given; until
 * tracer_let_go(). */
int tracer_thaw_holding(struct tracer *tracer);

/* No call is held any more, nobody traced. What was read in the freeze stays.
 */
void tracer_let_go(struct tracer *tracer);
