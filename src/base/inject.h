/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Places at which a test has the program fail, die or stall. They exist only
 * in snapuffd-inject, which is built for the tests of the same sources, with
 * SNAPUFFD_INJECT defined; to all others they are the constant 0.
 *
 * A point stands in front of the step that it is named after, as "area-step",
 * or behind it as "area-step-done", and fails in the way of that step:
 *
 *	r = INJECT("arm-protect") ?: uffd_protect(uffd, step);
 *	if (INJECT_ERRNO("image-size") || ftruncate(fd, len))
 *	INJECT_INTO(r, "freeze-xstate");
 *	if (!r)
 *		r = ptrace_get_xstate(tid, ...);
 *
 * Where nothing can fail it is INJECT_HERE(). Each name is used once.
 *
 * $SNAPUFFD_INJECT chooses what happens, "POINT:ACTION[:NTH]" (from 1 on;
 * counted over the process and all that it forks; once):
 *
 *	error[=ERRNO]	-ERRNO, a number, is returned: -EIO without one
 *	kill		SIGKILL of the process that got there
 *	stall[=SECONDS]	that thread sleeps: for ever without a number
 *
 * or is "list": all points are printed, a line each, with "fails" behind those
 * that can return an error, and nothing is done. To
 * the file that $SNAPUFFD_INJECT_LOG names, each point is appended when the
 * process or one that it forks gets there first.
 */

#ifdef SNAPUFFD_INJECT

#include <stdbool.h>

struct inject_point {
	const char *name;
	bool fails; /* can */
};

/* 0, or what is to be returned; may not return. Thread-safe. */
int inject_at(const struct inject_point *point);
/* The same for a step that sets errno: 0 or -1. */
int inject_errno_at(const struct inject_point *point);

#define INJECT_BY_(fn, name_, fails_)                                          \
	({                                                                     \
		static const struct inject_point inject_point_ __attribute__(( \
			section("inject_points"), used)) = { name_, fails_ };  \
		fn(&inject_point_);                                            \
	})
#define INJECT(name)	   INJECT_BY_(inject_at, name, true)
#define INJECT_ERRNO(name) INJECT_BY_(inject_errno_at, name, true)
#define INJECT_HERE(name)  ((void)INJECT_BY_(inject_at, name, false))

#else

#define INJECT(name)	   0
#define INJECT_ERRNO(name) 0
#define INJECT_HERE(name)  ((void)0)

#endif

/* In front of a step that is made only if `r` is still 0. */
#define INJECT_INTO(r, name)                \
	do {                                \
		if (!(r))                   \
			(r) = INJECT(name); \
	} while (0)
