/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The way back: a chain of signal frames below the red zone of a held thread,
 * which ends in the state in which the thread was found. Whenever the tracer
 * dies, the kernel lets the thread run with the registers it then has; they
 * always are those of
 *
 *	syscall; ret -> [store result] -> frame -> frame -> … -> home
 *
 * where every frame is loaded by rt_sigreturn(2), closes one descriptor that
 * was opened in the target, and returns into the next.
 *
 *	rsp - 128	red zone
 *			XSAVE area, shared by all frames
 *			home		the original state
 *			links[0..2]	close(2), the oldest first
 *			scratch		for arguments of calls
 *	remote_addr
 *
 * Descriptors are closed in the opposite order of opening. What the chain
 * covers is put back on departure; by the ABI nothing lives there.
 *
 * Not thread-safe, logs nothing.
 */

#include <stdint.h>
#include <sys/types.h>

#include "parasite/arch-x86_64.h"
#include "sys/ptrace.h"

#define WAYBACK_FDS	3
#define WAYBACK_SCRATCH 256

struct wayback_link {
	/* Right-justified: the store gadget's address and what it pops; `ret`
	 * then takes frame.pretcode. */
	uint64_t slots[1 + ARCH_STORE_SLOTS];
	struct arch_sigframe frame;
};

struct wayback {
	pid_t pid;
	struct arch_gadgets gadgets;
	uint64_t remote_addr;
	size_t len;
	void *saved; /* what was at remote_addr before, `len` bytes */
	size_t n_fds;
	int fds[WAYBACK_FDS];
};

/*
 * Writes the chain for a stopped thread that was found with `regs` and
 * `sigmask`; `stack` is the mapping that it must fit in. -ENOSPC when it does
 * not, or -errno. Nothing uses the chain before registers are set to it.
 */
int wayback_init(struct wayback *w, pid_t pid, struct range stack,
		 const struct arch_gadgets *gadgets,
		 const struct user_regs_struct *regs, uint64_t sigmask);

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
