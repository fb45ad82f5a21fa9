/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Functions return 0, -errno, or one of these positive codes, which every
 * caller passes up unchanged: the verdict on a whole command, and its exit
 * code. Whoever returns one has logged why.
 */
enum result {
	RESULT_FAILED = 1,	 /* the target runs on unharmed */
	RESULT_USAGE = 2,	 /* wrong command line */
	RESULT_UNSUPPORTED = 3,	 /* this host or target cannot be dumped */
	RESULT_INCONSISTENT = 4, /* the snapshot was torn and is discarded */
};

/* The exit code for what a verb returned: -errno means a plain failure. */
static inline int result_exit_code(int r)
{
	return r < 0 ? RESULT_FAILED : r;
}
