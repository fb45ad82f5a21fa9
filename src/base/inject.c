/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

/* By the linker: all points of the program. */
extern const struct inject_point __start_inject_points[];
extern const struct inject_point __stop_inject_points[];

enum action { ACTION_ERROR, ACTION_KILL, ACTION_STALL };

static const struct {
	const char *name;
	enum action action;
	unsigned argument; /* where none is given */
} actions[] = {
	{ "error", ACTION_ERROR, EIO },
	{ "kill", ACTION_KILL, 0 },
	{ "stall", ACTION_STALL, 0 },
};

/* What the environment asks for; set before main(). */
static struct {
	const struct inject_point *point; /* NULL: nothing is to happen */
	enum action action;
	unsigned argument, nth;
	const char *log_path;
} order;

/* Shared with all that is forked: how often each point was come to. */
static atomic_uint *n_hits;

static size_t n_points(void)
{
	return (size_t)(__stop_inject_points - __start_inject_points);
}

static __attribute__((noreturn)) void reject(const char *text)
{
	fprintf(stderr, "SNAPUFFD_INJECT: %s: what?\n", text);
	_exit(2);
}

static void list_points(void)
{
	for (size_t i = 0; i < n_points(); i++)
		printf("%s%s\n", __start_inject_points[i].name,
		       __start_inject_points[i].fails ? " fails" : "");
}

static void find_point(const char *name)
{
	for (size_t i = 0; i < n_points(); i++)
		if (!strcmp(__start_inject_points[i].name, name))
			order.point = &__start_inject_points[i];
}

/* "error=28" */
static bool parse_action(char *text)
{
	char *argument = text;
	const char *name = strsep(&argument, "=");

	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		if (strcmp(actions[i].name, name))
			continue;
		order.action = actions[i].action;
		order.argument = argument ? (unsigned)atoi(argument)
					  : actions[i].argument;
		return true;
	}
	return false;
}

static void parse(const char *text)
{
	_cleanup_free_ char *copy = strdup(text);
	char *rest = copy, *action, *nth;

	if (!copy)
		reject(text);
	find_point(strsep(&rest, ":"));
	action = strsep(&rest, ":");
	nth = strsep(&rest, ":");
	order.nth = nth ? (unsigned)atoi(nth) : 1;
	if (!order.point || !action || !parse_action(action) || !order.nth ||
	    rest || (order.action == ACTION_ERROR && !order.point->fails))
		reject(text);
}

static __attribute__((constructor)) void inject_init(void)
{
	const char *text = getenv("SNAPUFFD_INJECT");

	n_hits =
		mmap(NULL, n_points() * sizeof(*n_hits), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (n_hits == MAP_FAILED)
		reject("mmap");
	order.log_path = getenv("SNAPUFFD_INJECT_LOG");
	if (text && !strcmp(text, "list")) {
		list_points();
		exit(0);
	}
	if (text && *text)
		parse(text);
}

/* Opened for each line: nobody then closes it, nor takes it for something
 * else. */
static void note(const struct inject_point *point)
{
	_cleanup_close_ int fd =
		open(order.log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
		     0600);
	char line[64];
	int len = snprintf(line, sizeof(line), "%s\n", point->name);

	if (fd < 0 || write(fd, line, (size_t)len) != len)
		reject(order.log_path);
}

static void stall(void)
{
	uint64_t until =
		now_ns() + (uint64_t)order.argument * 1000 * 1000 * 1000;

	while (!order.argument || now_ns() < until)
		usleep(10000);
}

int inject_at(const struct inject_point *point)
{
	unsigned n =
		1 + atomic_fetch_add(&n_hits[point - __start_inject_points], 1);

	if (n == 1 && order.log_path)
		note(point);
	if (point != order.point || n != order.nth)
		return 0;
	switch (order.action) {
	case ACTION_ERROR:
		return -(int)order.argument;
	case ACTION_KILL:
		kill(getpid(), SIGKILL);
		break;
	case ACTION_STALL:
		stall();
		break;
	}
	return 0;
}

int inject_errno_at(const struct inject_point *point)
{
	int r = inject_at(point);

	if (r)
		errno = -r;
	return r ? -1 : 0;
}
