/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/mapcopy.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

/* Where to go on SIGBUS: each thread's own, and only while it copies. */
static _Thread_local sigjmp_buf *way_out;

static void on_bus_error(int signal)
{
	if (way_out)
		siglongjmp(*way_out, 1);
	/* Not ours: die of it. */
	struct sigaction action = { .sa_handler = SIG_DFL };

	sigaction(signal, &action, NULL);
	raise(signal);
}

int mapcopy_install(void)
{
	/* Jumping out of the handler, the signal must not stay blocked. */
	struct sigaction action = { .sa_handler = on_bus_error,
				    .sa_flags = SA_NODEFER };

	return sigaction(SIGBUS, &action, NULL) ? -errno : 0;
}

/* A signal of the thread's own making that is blocked ends the process. */
static void unblock(void)
{
	static _Thread_local bool is_done;
	sigset_t bus;

	if (is_done)
		return;
	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &bus, NULL);
	is_done = true;
}

int mapcopy(void *to, const void *from, size_t len)
{
	sigjmp_buf here;

	unblock();
	if (sigsetjmp(here, 0)) {
		way_out = NULL;
		return -EFAULT;
	}
	way_out = &here;
	atomic_signal_fence(memory_order_seq_cst);
	memcpy(to, from, len);
	atomic_signal_fence(memory_order_seq_cst);
	way_out = NULL;
	return 0;
}
