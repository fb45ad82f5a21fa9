/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Scope guards: what a function holds is given back on every return path.
 * `steal_*` hands ownership on.
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

/* Closes *fd when it is one; keeps errno, so it may run on an error path. */
static inline void close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

static inline void free_ptr(void *p)
{
	free(*(void **)p);
	*(void **)p = NULL;
}

static inline void close_dir(DIR **d)
{
	if (*d)
		closedir(*d);
	*d = NULL;
}

static inline void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
	*f = NULL;
}

#define _cleanup_close_	   _cleanup_(close_fd)
#define _cleanup_free_	   _cleanup_(free_ptr)
#define _cleanup_closedir_ _cleanup_(close_dir)
#define _cleanup_fclose_   _cleanup_(close_file)

static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

#define steal_ptr(p)                         \
	({                                   \
		__typeof__(p) stolen_ = (p); \
		(p) = NULL;                  \
		stolen_;                     \
	})
