/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Where in the target's memory the way back of a held thread may lie.
 *
 * Of the main thread on its own stack: right below the red zone, where by the
 * ABI nothing lives.
 *
 * Of any other thread, and of a main thread on a stack that is not the
 * kernel's (a coroutine, a goroutine, a handler on an alternate stack), nothing
 * is known about what lies below its stack pointer. But of [stack] the lowest
 * part is free, when nobody has ever been there: when it, and a good piece
 * above, is all zero. The one thread that owns [stack] cannot come there
 * meanwhile, for it is the one that is held, or it has exited; where another
 * process runs in the same memory, it could, and nothing is free.
 *
 *	stack.end	arguments, environment
 *			the main thread's frames
 *			…
 *			PLACE_SLACK of zeros
 *	stack.start	the way back
 *
 * A killed tracer leaves its way back there, marked with the thread that it is
 * of. That thread being held and somewhere else, or gone, it is free again.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "parasite/candidate.h"
#include "sys/ptrace.h"

/* Memory that a frame of the main thread may have set aside and not used yet,
 * and that another thread may be about to write to, is longer than that only
 * in theory. A fresh stack has 128 KiB below its arguments. */
#define PLACE_SLACK (32 * KIB)

/*
 * For a thread that is stopped with `regs`, and `len` bytes. 1 and the lowest
 * address, 0 where nothing is free as long as the thread is where it is, or
 * -errno. Leavings in the place are erased; `candidate->stack` is brought up to
 * date.
 */
int place_find(struct candidate *candidate, int proc_fd,
	       const struct user_regs_struct *regs, size_t len,
	       uint64_t *remote_addr);

/* The thread whose leavings are on the stack, 0 when there are none. */
pid_t place_read_owner(pid_t tid, struct range stack);
