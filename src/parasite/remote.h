/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A thread of another process, held by ptrace(2) and made to run system calls
 * one at a time. It keeps the descriptors that those opened and closes them on
 * release. Whenever the tracer dies, the thread goes home by itself: wayback.h
 * says how.
 *
 *	FREE -hold-> EVENT -call-> EXIT -call-> EXIT -release-> FREE
 *
 * During a call it is RUNNING or at its ENTRY.
 *
 * All calls must come from the thread that called remote_hold(). Failures of
 * the hold and the release are logged, those of calls are not.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "parasite/wayback.h"
#include "sys/ptrace.h"

enum remote_state {
	REMOTE_FREE,	/* not attached, or gone */
	REMOTE_RUNNING, /* attached; only an interrupt is possible */
	REMOTE_ENTRY,	/* stopped before a system call: its way back alone
			   knows what to do with the result */
	REMOTE_EVENT,	/* stopped in get_signal(): may be called or released */
	REMOTE_EXIT,	/* stopped behind a system call: the same */
};

struct remote {
	pid_t pid;
	pid_t tid; /* the thread; `pid` unless the main thread has exited */
	int proc_fd;
	enum remote_state state;
	struct user_regs_struct regs; /* as the thread was found */
	uint64_t sigmask;
	uint64_t blocked; /* differs from it in ppoll(2) and its like */
	struct wayback wayback;
	bool is_adrift; /* what it has opened or closed, its way back alone
			   knows */
	uint64_t held_since_ns;
};

/*
 * Stops the main thread of `pid`, or another where that has exited, which
 * `proc_fd` (borrowed until the release) and `pidfd` (borrowed for the call)
 * name as well, blocks its signals and prepares its way back. 0 and a thread in
 * EVENT, or the error of parasite_infect().
 */
int remote_hold(struct remote *r, pid_t pid, int proc_fd, int pidfd);

/*
 * Puts everything back and lets go: 0, -ESRCH when the thread is gone, or
 * -errno when it was sent home by its way back or (-ETIMEDOUT) could not be
 * stopped. On a thread that is free it does nothing.
 */
int remote_release(struct remote *r);

/*
 * Detaches in whatever stop the thread is or can be brought to; it goes on with
 * the registers that it has. 0, -ESRCH, -ETIMEDOUT (logged), or -errno.
 */
int remote_let_go(struct remote *r);

/*
 * Runs a system call that does not wait and does not need undoing. Returns 0
 * and its result, -errno for a failure, in `result`; or -errno when it could
 * not be run, after which only a release makes sense.
 */
int remote_call(struct remote *r, long nr, const uint64_t args[6],
		long *result);

/* The same for one that returns a descriptor: `fd` is kept open by `r` until
 * it is closed, the newest first, or released. A failure of the call itself
 * returns its -errno, too. */
int remote_open_fd(struct remote *r, long nr, const uint64_t args[6], int *fd);

/* Receives one descriptor from a socket of the thread, with one byte of data,
 * and keeps it in the same way. -EMFILE when none arrived. */
int remote_receive_fd(struct remote *r, int sock, int *fd);

/* Closes the newest descriptor. */
int remote_close_fd(struct remote *r);
