/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Processes that check themselves while something is done to them: their main
 * thread repeats one step, a few milliseconds long, and notes whatever it
 * should not have seen, above all an EINTR that no handler explains.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

/* Shared by victim and test. */
struct victim_report {
	atomic_bool ready;
	atomic_bool quit;
	atomic_ulong steps;   /* of the main thread */
	atomic_ulong signals; /* handled */
	atomic_int tid;	      /* a live thread, once the main thread exits */
	atomic_int n_failures;
	char failure[256]; /* the first */
};

enum victim_trait {
	VICTIM_UNPRIVILEGED = 1, /* uid 65534, no capability */
	VICTIM_SECCOMP = 2,	 /* killed for what a parasite would call */
	VICTIM_NO_FDS = 4,	 /* RLIMIT_NOFILE is used up */
	VICTIM_SIGNALS = 8,	 /* a handler at 2 kHz, all restarting */
	VICTIM_ALTSTACK = 16,	 /* which runs on an alternate stack */
};

struct victim_kind {
	const char *name;
	void (*step)(struct victim_report *report);
	void (*setup)(struct victim_report *report); /* may be NULL */
	bool may_see_eintr_by_signals; /* signal(7): never restarted */
};

/* All steps that a target's main thread may be found in. */
extern const struct victim_kind victim_kinds[];
extern const size_t victim_n_kinds;
const struct victim_kind *victim_find_kind(const char *name);

/* What VICTIM_SECCOMP is killed for. */
bool victim_is_forbidden_call(long nr);

/* Places that a thread cannot be held in. */
extern const struct victim_kind victim_32_bit;
extern const struct victim_kind victim_vfork; /* for 3 s a step, not to be
					       * interrupted */

/* Whose main thread is not on its own stack, for good (victim_stacks.c). */
extern const struct victim_kind victim_coroutine; /* busy */
extern const struct victim_kind victim_coroutine_poll;
extern const struct victim_kind victim_in_handler; /* on another stack */
extern const struct victim_kind victim_used_stack; /* a coroutine, and no part
						    * of the own stack is
						    * unused */
/* Whose main thread has exited while others live on, and nothing of them. */
extern const struct victim_kind victim_main_exited;

struct victim {
	pid_t pid;
	int proc_fd; /* /proc/PID, or of its thread report->tid */
	int pidfd;
	struct victim_report *report;
	char *state; /* descriptors, mappings, signals, tracer of all threads */
};

/* Starts one and waits until it is in its steps. Fails the test by assertion,
 * as all of these. */
void victim_start(struct victim *v, const struct victim_kind *kind,
		  unsigned traits);

/* That it is in the state it was in at its start, complains of nothing and
 * goes on. `when` is printed if not. */
void victim_check(struct victim *v, const char *when);

/* That it has made a few steps more. */
void victim_check_runs(struct victim *v, const char *when);

/* The state letter of /proc/PID/status. */
char victim_run_state(struct victim *v);

/* Ends it, after a last look at its complaints. */
void victim_stop(struct victim *v);
