/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "victim.h"

/*
 *	victim [[huge-]journal=THREADS[,CHILDREN[,PAGES]]] [registers] [wait]
 *		[timed=MS] [timers] [churn=KIND,...] [[huge-]memory=DIR]
 *		[dirty=MIB,DIR]
 *
 * Says "ready" when all of it runs. Commands, a line each on stdin, which the
 * main thread waits on; each is answered with "done COMMAND" at the end:
 *
 *	check	journal and registers, "checked SEQ"
 *	wake	ends every wait, a line of each
 *	timed	waits for all that is timed, a line of each
 *	timers	"timers ..."
 *	churn	a line of each kind
 *	memory	a line of each block
 *	leak fds|mappings|threads|rss_kib
 *	abort	with a core, if RLIMIT_CORE allows it
 *	quit
 */

struct victim_thread victim_threads[N_THREADS_MAX];
atomic_uint victim_n_threads;
atomic_bool victim_stop;
_Thread_local uint64_t victim_tls_mark;

uint64_t victim_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void say(const char *format, va_list arguments)
{
	char line[512];
	int len = vsnprintf(line, sizeof(line) - 1, format, arguments);

	if (len < 0 || len >= (int)sizeof(line) - 1)
		abort();
	line[len] = '\n';
	if (write(STDOUT_FILENO, line, (size_t)len + 1) != len + 1)
		_exit(1);
}

void victim_say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
}

void victim_die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
	_exit(1);
}

static void enter(const char *name)
{
	unsigned int slot = atomic_fetch_add(&victim_n_threads, 1);
	struct victim_thread *thread = &victim_threads[slot];

	if (slot >= N_THREADS_MAX)
		victim_die("too many threads");
	thread->tid = (pid_t)syscall(SYS_gettid);
	snprintf(thread->name, NAME_LEN, "%s", name);
	pthread_setname_np(pthread_self(), thread->name);
	victim_tls_mark = TLS_BASE ^ (uint64_t)thread->tid;
}

struct start {
	const char *name;
	void *(*run)(void *);
	void *argument;
};

static void *run_thread(void *argument)
{
	struct start start = *(struct start *)argument;

	free(argument);
	enter(start.name);
	return start.run(start.argument);
}

pthread_t victim_start(const char *name, void *(*run)(void *), void *argument)
{
	struct start *start = malloc(sizeof(*start));
	pthread_t thread;

	if (!start)
		abort();
	*start = (struct start){ name, run, argument };
	if (pthread_create(&thread, NULL, run_thread, start) != 0)
		victim_die("%s: no thread", name);
	return thread;
}

static const char *value(const char *argument, const char *name)
{
	size_t len = strlen(name);

	if (strncmp(argument, name, len) != 0)
		return NULL;
	return argument[len] == '=' ? argument + len + 1
	       : argument[len] == 0 ? ""
				    : NULL;
}

static void start_journal(const char *text, bool huge)
{
	unsigned int n_threads, n_children = 0;
	uint64_t n_pages = 1024;

	if (sscanf(text, "%u,%u,%lu", &n_threads, &n_children, &n_pages) < 1 ||
	    (huge && n_children))
		victim_die("journal: %s: what?", text);
	journal_start(n_threads, n_children, n_pages, huge);
}

static void start(const char *argument)
{
	const char *text;
	char dir[256];
	uint64_t mib;

	if ((text = value(argument, "journal")))
		start_journal(text, false);
	else if ((text = value(argument, "huge-journal")))
		start_journal(text, true);
	else if (value(argument, "registers"))
		registers_start();
	else if (value(argument, "wait"))
		wait_start();
	else if ((text = value(argument, "timed")))
		timed_start(strtoul(text, NULL, 10));
	else if (value(argument, "timers"))
		timers_start();
	else if ((text = value(argument, "churn")))
		churn_start(text);
	else if ((text = value(argument, "memory")))
		memory_start(text, false);
	else if ((text = value(argument, "huge-memory")))
		memory_start(text, true);
	else if ((text = value(argument, "vfork")))
		asleep_vfork(strtoul(text, NULL, 10));
	else if ((text = value(argument, "write")))
		asleep_write(text);
	else if ((text = value(argument, "confine")))
		confine_start(text);
	else if ((text = value(argument, "dirty"))) {
		if (sscanf(text, "%lu,%255s", &mib, dir) != 2)
			victim_die("%s: what?", argument);
		dirty_start(mib, dir);
	} else
		victim_die("%s: what?", argument);
}

static void *sleep_on(void *unused)
{
	for (;;)
		pause();
	return unused;
}

/* One more, for good. */
static void leak(const char *what)
{
	const size_t len = 64 * PAGE_LEN;
	pthread_t thread;
	char *at;

	if (strcmp(what, "fds") == 0) {
		if (dup(STDIN_FILENO) < 0)
			victim_die("leak: dup: %s", strerror(errno));
	} else if (strcmp(what, "threads") == 0) {
		if (pthread_create(&thread, NULL, sleep_on, NULL) != 0)
			victim_die("leak: no thread");
	} else {
		at = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (at == MAP_FAILED)
			victim_die("leak: mmap: %s", strerror(errno));
		/* What is like its neighbour becomes one with it. */
		if (strcmp(what, "mappings") == 0)
			mprotect(at, PAGE_LEN, PROT_READ);
		else
			memset(at, 1, len);
	}
}

static bool obey(const char *command)
{
	if (strcmp(command, "quit") == 0)
		return false;
	if (strcmp(command, "check") == 0) {
		journal_check();
		registers_check();
		victim_say("checked %lu", journal_seq());
	} else if (strcmp(command, "wake") == 0)
		wait_wake();
	else if (strcmp(command, "timed") == 0)
		timed_report();
	else if (strcmp(command, "timers") == 0)
		timers_report();
	else if (strcmp(command, "churn") == 0)
		churn_report();
	else if (strcmp(command, "memory") == 0)
		memory_report();
	else if (strncmp(command, "leak ", 5) == 0)
		leak(command + 5);
	else if (strcmp(command, "write") == 0)
		asleep_report();
	else if (strcmp(command, "abort") == 0)
		abort();
	else
		victim_die("%s: no command", command);
	victim_say("done %s", command);
	return true;
}

int main(int argc, char **argv)
{
	char line[64];
	sigset_t all;

	/* Threads take only the signals that they ask for. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* What is made of semaphores and queues goes when we are killed. */
	if (unshare(CLONE_NEWIPC))
		victim_die("unshare: %s", strerror(errno));
	enter("main");
	for (int i = 1; i < argc; i++)
		start(argv[i]);
	victim_say("ready");
	for (;;) {
		errno = 0;
		if (!fgets(line, sizeof(line), stdin))
			victim_die("main: read: %s", strerror(errno));
		line[strcspn(line, "\n")] = 0;
		if (!obey(line))
			return 0;
	}
}
