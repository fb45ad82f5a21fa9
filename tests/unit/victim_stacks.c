/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Victims whose main thread is not on the stack that the kernel made, and one
 * that has none. They look at their registers, at the stack they are on, and
 * at the frames that wait on the other one.
 */
#include "victim.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/util.h"

#define STACK_LEN (256 * KIB)
#define FILL	  0xa5

/* The victim's own: a process is one victim. */
static struct victim_report *self;
static void (*step)(struct victim_report *report);
static volatile uint8_t *waiting; /* a frame on the main thread's stack */
static size_t waiting_len;
static struct {
	uint8_t below[STACK_LEN];
	uint8_t stack[STACK_LEN];
	uint8_t above[STACK_LEN];
} room;

static void complain(const char *fmt, ...)
{
	va_list args;

	if (atomic_fetch_add(&self->n_failures, 1))
		return;
	va_start(args, fmt);
	vsnprintf(self->failure, sizeof(self->failure), fmt, args);
	va_end(args);
}

static void check_filled(const char *what, const volatile uint8_t *at,
			 size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (at[i] != FILL) {
			complain("%s: byte %zu changed", what, i);
			return;
		}
}

static void step_registers(struct victim_report *r)
{
	victim_find_kind("registers")->step(r);
}

static void step_poll(struct victim_report *r)
{
	(void)r;
	if (poll(NULL, 0, 3))
		complain("poll: %m");
}

static void live_on(void)
{
	sigset_t mask, mask_now;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	atomic_store(&self->ready, true);
	while (!atomic_load(&self->quit)) {
		step(self);
		sigprocmask(SIG_BLOCK, NULL, &mask_now);
		if (memcmp(&mask, &mask_now, 8))
			complain("signal mask changed");
		check_filled("below the stack", room.below, STACK_LEN);
		check_filled("above the stack", room.above, STACK_LEN);
		/* The deepest of it is never reached. */
		check_filled("the stack", room.stack, STACK_LEN / 2);
		check_filled("a frame of the main stack", waiting, waiting_len);
		atomic_fetch_add(&self->steps, 1);
	}
	_exit(0);
}

static void set_up(struct victim_report *r, volatile uint8_t *frame, size_t len)
{
	self = r;
	memset(&room, FILL, sizeof(room));
	for (size_t i = 0; i < len; i++)
		frame[i] = FILL;
	waiting = frame;
	waiting_len = len;
}

static void run_coroutine(void)
{
	ucontext_t context, back;

	getcontext(&context);
	context.uc_stack.ss_sp = room.stack;
	context.uc_stack.ss_size = STACK_LEN;
	makecontext(&context, live_on, 0);
	swapcontext(&back, &context);
}

static void step_coroutine(struct victim_report *r)
{
	volatile uint8_t frame[8192];

	set_up(r, frame, sizeof(frame));
	step = step_registers;
	run_coroutine();
}

const struct victim_kind victim_coroutine = { .name = "coroutine",
					      .step = step_coroutine };

static void step_coroutine_poll(struct victim_report *r)
{
	volatile uint8_t frame[8192];

	set_up(r, frame, sizeof(frame));
	step = step_poll;
	run_coroutine();
}

const struct victim_kind victim_coroutine_poll = {
	.name = "coroutine, poll", .step = step_coroutine_poll
};

/* Down to where the mapping ends, and a good piece more. */
static void step_used_stack(struct victim_report *r)
{
	volatile uint8_t frame[512 * KIB];

	set_up(r, frame, sizeof(frame));
	step = step_poll;
	run_coroutine();
}

const struct victim_kind victim_used_stack = { .name = "used stack",
					       .step = step_used_stack };

static void on_usr2(int sig)
{
	(void)sig;
	live_on();
}

static void step_in_handler(struct victim_report *r)
{
	struct sigaction action = { .sa_handler = on_usr2,
				    .sa_flags = SA_ONSTACK };
	stack_t stack = { .ss_sp = room.stack, .ss_size = STACK_LEN };
	volatile uint8_t frame[8192];

	set_up(r, frame, sizeof(frame));
	step = step_registers;
	if (sigaltstack(&stack, NULL) || sigaction(SIGUSR2, &action, NULL))
		complain("sigaltstack: %m");
	raise(SIGUSR2);
}

const struct victim_kind victim_in_handler = { .name = "in a handler",
					       .step = step_in_handler };

static void *outlive(void *arg)
{
	char state = 0;

	(void)arg;
	/* By now the main thread has gone, or will be in a moment. */
	while (state != 'Z') {
		char path[64], text[128] = "", *at;
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%d/stat",
			 getpid());
		file = fopen(path, "re");
		if (file && fgets(text, sizeof(text), file)) {
			at = strrchr(text, ')');
			state = at ? at[2] : 0;
		}
		if (file)
			fclose(file);
		usleep(1000);
	}
	/* That was of the thread that started us, which has exited. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&self->tid, (int)syscall(SYS_gettid));
	live_on();
	return NULL;
}

static void step_main_exited(struct victim_report *r)
{
	pthread_t thread;

	set_up(r, NULL, 0);
	step = step_registers;
	if (pthread_create(&thread, NULL, outlive, NULL))
		complain("pthread_create");
	pthread_exit(NULL);
}

const struct victim_kind victim_main_exited = { .name = "main has exited",
						.step = step_main_exited };
