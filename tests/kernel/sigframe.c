/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The signal frame as the way back builds it: sizes and marks of its extended
 * state are where the CPU says that they are, an invalid alternate stack in it
 * leaves the thread's own alone, and its mask is taken.
 */
#include <cpuid.h>
#include <ucontext.h>

#include "kernel-test.h"

#define XSTATE_MAGIC1 0x46505853
#define XSTATE_MAGIC2 0x46505845

struct sw_bytes {
	uint32_t magic1;
	uint32_t extended_size;
	uint64_t xfeatures;
	uint32_t xstate_size;
};

static char stack[65536];

static size_t size_by_cpuid(uint64_t features)
{
	size_t size = 576;

	for (unsigned i = 2; i < 63; i++) {
		unsigned eax, ebx, ecx, edx;

		if (!(features >> i & 1))
			continue;
		__cpuid_count(0xd, i, eax, ebx, ecx, edx);
		size = max_u64(size, (uint64_t)ebx + eax);
	}
	return size;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	const char *area = (const char *)uc->uc_mcontext.fpregs;
	struct sw_bytes sw;
	uint32_t magic2;

	(void)sig;
	(void)info;
	memcpy(&sw, area + 464, sizeof(sw));
	if (sw.magic1 != XSTATE_MAGIC1)
		skip("no XSAVE");
	need(sw.xstate_size == size_by_cpuid(sw.xfeatures));
	need(sw.extended_size == sw.xstate_size + sizeof(magic2));
	memcpy(&magic2, area + sw.xstate_size, sizeof(magic2));
	need(magic2 == XSTATE_MAGIC2);

	uc->uc_stack.ss_flags = 0x7fff;
	uc->uc_stack.ss_sp = NULL;
	uc->uc_stack.ss_size = 0;
	sigaddset(&uc->uc_sigmask, SIGUSR2);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = on_signal,
				    .sa_flags = SA_SIGINFO };
	stack_t altstack = { .ss_sp = stack, .ss_size = sizeof(stack) }, now;
	sigset_t mask;

	need(!sigaltstack(&altstack, NULL));
	need(!sigaction(SIGUSR1, &action, NULL));
	raise(SIGUSR1);
	need(!sigaltstack(NULL, &now));
	need(now.ss_sp == stack && now.ss_size == sizeof(stack) &&
	     !now.ss_flags);
	need(!sigprocmask(SIG_BLOCK, NULL, &mask));
	need(sigismember(&mask, SIGUSR2) && !sigismember(&mask, SIGUSR1));
	return 0;
}
