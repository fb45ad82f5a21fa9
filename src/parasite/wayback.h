/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The way back: a chain of signal frames in memory that a held thread does not
 * use (place.h), which ends in the state in which the thread was found. It may
 * lie on another stack than the thread's own. Whenever the tracer
 * dies, the kernel lets the thread run with the registers it then has; they
 * always are those of
 *
 *	syscall; ret -> [store result] -> frame -> frame -> … -> home
 *
 * where every frame is loaded by rt_sigreturn(2), closes one descriptor that
 * was opened in the target, and returns into the next.
 *
 *	+ len		(the red zone, where the thread is on its own stack)
 *			XSAVE area, shared by all frames
 *			home		the original state
 *			links[0..2]	close(2), the oldest first
 *			scratch		for arguments of calls
 *	remote_addr	mark		whose it is
 *
 * Descriptors are closed in the opposite order of opening. What the chain
 * covers is put back on departure. Of a killed tracer it stays, all used up,
 * where nothing lives; the mark tells the next tracer whose it is.
 *
 * Not thread-safe, logs nothing.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "parasite/arch-x86_64.h"
#include "sys/ptrace.h"

#define WAYBACK_FDS	3
#define WAYBACK_SCRATCH 256
#define WAYBACK_ALIGN	64 /* of remote_addr and of the length */

/* No way back is longer. */
#define WAYBACK_LEN_MAX (ARCH_XSTATE_MAX + 2048)

struct wayback_mark {
	uint64_t magic[2];
	uint32_t tid;
	uint32_t len;
};

struct wayback_link {
	/* Right-justified: the store gadget's address and what it pops; `ret`
	 * then takes frame.pretcode. */
	uint64_t slots[1 + ARCH_STORE_SLOTS];
	struct arch_sigframe frame;
};

struct wayback {
	pid_t tid;
	struct arch_gadgets gadgets;
	uint64_t remote_addr;
	size_t len;
	void *saved; /* what was at remote_addr before, `len` bytes */
	size_t n_fds;
	int fds[WAYBACK_FDS];
};

/* How many bytes the way back of a stopped thread takes. 0 or -errno. */
int wayback_measure(pid_t tid, size_t *len);

/*
 * Writes the chain for a stopped thread that was found with `regs` and
 * `sigmask` to `len` free bytes, as measured, at `remote_addr`. 0 or -errno.
 * Nothing uses the chain before registers are set to it.
 */
int wayback_init(struct wayback *w, pid_t tid, uint64_t remote_addr, size_t len,
		 const struct arch_gadgets *gadgets,
		 const struct user_regs_struct *regs, uint64_t sigmask);

/* Whether this is the mark of one, with a length that is possible. */
bool wayback_is_mark(const struct wayback_mark *mark);

/* Frees; the target's memory stays as it is. */
void wayback_deinit(struct wayback *w);

/* Puts back what the chain covered, once no register leads there. */
int wayback_erase(const struct wayback *w);

/* The stack pointer that closes the `n_fds` oldest descriptors and goes home.
 */
uint64_t wayback_sp(const struct wayback *w, size_t n_fds);

/*
 * The stack pointer from which the value in %eax, returned by a system call,
 * becomes the next link's descriptor; `store_to` is for the gadget's register.
 * Without such a gadget the next link is passed by: 0 in `store_to`.
 */
uint64_t wayback_sp_storing(const struct wayback *w, uint64_t *store_to);

/* Where the next link takes its descriptor from, an int. */
uint64_t wayback_next_fd(const struct wayback *w);

/* The next link closes `fd` from now on. -EMFILE when all are used. */
int wayback_push_fd(struct wayback *w, int fd);

/* The newest descriptor is closed, and no register leads to its link. */
int wayback_pop_fd(struct wayback *w);

/* WAYBACK_SCRATCH bytes. */
uint64_t wayback_scratch(const struct wayback *w);
