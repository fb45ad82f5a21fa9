/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the dumper says of itself to a process that watches over it: since when
 * it keeps the target, or a thread of it, from running on. It lies in memory
 * that both share, and is read without asking anybody: whoever is to be watched
 * may not run any more (flow/watchdog.h).
 *
 * Whoever may keep the target waiting has a place of his own here, and says
 * when he begins, and when he is done. Who does so for long, one after another,
 * says with each that he gets on (a beat); who waits for something to do wakes
 * up every `beat_ns` and says so, too. So a time that does not change means one
 * who is stuck, was stopped, or gets no processor.
 *
 * Each place is written by one thread at a time. All functions take a NULL
 * watch: nobody watches.
 */

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/util.h"

enum watch_place {
	WATCH_INFECTION, /* a keeper: one thread of the target stands */
	WATCH_PAUSE,	 /* the caller: all of it does */
	WATCH_FAULTS,	 /* the fault thread: who writes waits for it */
	WATCH_SCAN,	 /* the scanner: the same, for the blocks it owns */
	WATCH_CALLS,	 /* the tracing thread: who makes a system call */
	WATCH_CALL,	 /* its helper: one whose call is held */
	WATCH_CHILDREN,	 /* the fault thread: children that wait */
	WATCH_N_PLACES,
};

enum watch_state {
	WATCH_ON,
	WATCH_TRIPPED, /* the dump is to be given up */
	WATCH_OFF,     /* it is over */
};

struct watch {
	uint64_t max_ns;  /* that anybody may be kept waiting for */
	uint64_t beat_ns; /* between the beats of who is idle */
	_Atomic uint64_t since_ns[WATCH_N_PLACES]; /* 0: nobody waits */
	_Atomic uint64_t limit_ns[WATCH_N_PLACES];
	_Atomic unsigned n_without_buffer; /* who wait for the output */
	_Atomic pid_t keeper;		   /* of WATCH_INFECTION */
	_Atomic int state;
};

/* From now on somebody waits; for `limit_ns` at most. */
static inline void watch_begin_long(struct watch *watch, enum watch_place place,
				    uint64_t limit_ns)
{
	if (!watch)
		return;
	atomic_store(&watch->limit_ns[place], limit_ns);
	atomic_store(&watch->since_ns[place], now_ns());
}

static inline void watch_begin(struct watch *watch, enum watch_place place)
{
	if (watch)
		watch_begin_long(watch, place, watch->max_ns);
}

/* Who has begun gets on. */
static inline void watch_beat(struct watch *watch, enum watch_place place)
{
	if (watch)
		atomic_store(&watch->since_ns[place], now_ns());
}

static inline void watch_end(struct watch *watch, enum watch_place place)
{
	if (watch)
		atomic_store(&watch->since_ns[place], 0);
}

/* For poll(2) and its like; -1: for ever. */
static inline int watch_beat_ms(const struct watch *watch)
{
	return watch ? (int)(watch->beat_ns / 1000000) : -1;
}
