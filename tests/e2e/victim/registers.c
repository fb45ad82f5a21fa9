/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <sched.h>
#include <stddef.h>

#include "victim.h"

/*
 * A thread that counts in three places at once: a general register, a vector
 * register and a page. At any one instant, page and vector register hold what
 * the general register holds, or one less.
 *
 * Registers that are changed under it are noted in `failed`.
 */
struct registers {
	volatile uint64_t page[PAGE_WORDS];
	volatile uint64_t failed;
	volatile uint64_t stop;
} __attribute__((aligned(PAGE_LEN)));

struct registers registers;

/* Never returns while all is well; a function of its own for the judge. */
__attribute__((noinline)) static void registers_count(void)
{
	/* clang-format off */
	asm volatile("	xor	%%r12d, %%r12d\n"
		     "	pxor	%%xmm15, %%xmm15\n"
		     "	mov	%%r12, (%0)\n"
		     "1:\n"
		     "	mov	(%0), %%rax\n"
		     "	cmp	%%rax, %%r12\n"
		     "	jne	2f\n"
		     "	movq	%%xmm15, %%rax\n"
		     "	cmp	%%rax, %%r12\n"
		     "	jne	2f\n"
		     "	inc	%%r12\n"
		     "	mov	%%r12, (%0)\n"
		     "	movq	%%r12, %%xmm15\n"
		     "	pause\n"
		     "	cmpq	$0, (%2)\n"
		     "	je	1b\n"
		     "	jmp	3f\n"
		     "2:	movq	$1, (%1)\n"
		     "3:\n"
		     :
		     : "r"(registers.page), "r"(&registers.failed),
		       "r"(&registers.stop)
		     : "rax", "r12", "xmm15", "memory", "cc");
	/* clang-format on */
}

static void *run(void *unused)
{
	struct sched_param none = { 0 };

	(void)unused;
	/* It never sleeps: only what nobody else wants. */
	sched_setscheduler(0, SCHED_IDLE, &none);
	registers_count();
	return NULL;
}

void registers_start(void)
{
	victim_start("registers", run, NULL);
	while (registers.page[0] == 0)
		sched_yield();
}

void registers_check(void)
{
	if (registers.failed)
		victim_die("registers: changed at %lu", registers.page[0]);
}

_Static_assert(offsetof(struct registers, failed) == PAGE_LEN,
	       "the counter has a page of its own");
