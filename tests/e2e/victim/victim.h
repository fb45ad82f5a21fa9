/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A process that knows what its memory and registers must look like at any one
 * instant, and what each of its system calls must return.
 *
 *	main.c		options, the commands, the tables that a debugger reads
 *	journal.c	threads that write pages in an order
 *	registers.c	a thread whose registers are part of the order
 *	wait.c		threads that wait for something that somebody else does
 *	wait_timed.c	threads that wait for a time to pass
 *	timers.c	timers that fire all the time
 *	churn.c		threads whose memory comes and goes
 *	memory.c	memory of each kind, in a core or not
 *	asleep.c	threads that no signal wakes
 *	confine.c	what it does to be left alone
 *
 * The judge reads the core: tests/e2e/harness/victim_gdb.py.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE_LEN     4096UL
#define HUGE_LEN     (2UL << 20)
#define PAGE_WORDS   (PAGE_LEN / sizeof(uint64_t))
#define STAMP_FACTOR 0x9e3779b97f4a7c15ULL
#define TLS_BASE     0x7150715071500000ULL

#define N_THREADS_MAX 128
#define NAME_LEN      16

/* Every thread that lasts, for the judge. */
struct victim_thread {
	char name[NAME_LEN];
	pid_t tid;
};

extern struct victim_thread victim_threads[N_THREADS_MAX];
extern atomic_uint victim_n_threads;
extern atomic_bool victim_stop;

/* TLS_BASE ^ the thread's id, in each of victim_threads. */
extern _Thread_local uint64_t victim_tls_mark;

uint64_t victim_now_ns(void);

/* One line on stdout, in one write(2). */
__attribute__((format(printf, 1, 2))) void victim_say(const char *format, ...);

/* Says why and exits with 1: the test is to see it. */
__attribute__((format(printf, 1, 2), noreturn)) void victim_die(
	const char *format, ...);

/* Starts a thread, all its signals blocked, that is entered in the table. */
pthread_t victim_start(const char *name, void *(*run)(void *), void *argument);

/*
 * Of the page at `page` of a block: three words that say which step wrote it
 * last. A step that is under way has written the first of them.
 */
static inline void victim_stamp(volatile uint64_t *page, uint64_t step)
{
	page[0] = step;
	page[PAGE_WORDS / 2] = step * STAMP_FACTOR;
	page[PAGE_WORDS - 1] = ~step;
}

static inline bool victim_is_stamped(const volatile uint64_t *page,
				     uint64_t step)
{
	return page[0] == step && page[PAGE_WORDS / 2] == step * STAMP_FACTOR &&
	       page[PAGE_WORDS - 1] == ~step;
}

/* journal.c: `n_threads` in each of 1 + `n_children` processes, which share
 * the journal and end with this one. `huge`: in hugetlb pages, of which only
 * the second half is shared. */
void journal_start(unsigned int n_threads, unsigned int n_children,
		   uint64_t n_pages, bool huge);

/* Every page holds its last step; dies otherwise. */
void journal_check(void);
uint64_t journal_seq(void);

/* registers.c */
void registers_start(void);
void registers_check(void);

/* wait.c: says a line of each wait */
void wait_start(void);
void wait_wake(void);

/* wait_timed.c: likewise, each waits `ms` */
void timed_start(uint64_t ms);
void timed_report(void);

/* timers.c */
void timers_start(void);
void timers_report(void);

/* churn.c: `kinds` is a list with commas between */
void churn_start(const char *kinds);
void churn_report(void);

/* memory.c: files are made in `dir`; `huge`: hugetlb, too */
void memory_start(const char *dir, bool huge);
void memory_report(void);

/* Private pages of a file, all of them written. */
void dirty_start(uint64_t mib, const char *dir);

/* asleep.c: a thread waits `ms` for a child of vfork(2); one writes to a file
 * in `dir` all the time */
void asleep_vfork(uint64_t ms);
void asleep_write(const char *dir);
void asleep_report(void);

/* confine.c: `ways` is a list with commas between; the last of the words. */
void confine_start(const char *ways);
