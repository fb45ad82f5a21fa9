/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Runs a program and waits for its end. For a process without other threads.
 */

#include <stddef.h>

/*
 * argv[0] is looked for in PATH. What it prints, on stdout and on stderr, comes
 * back as `text`, at most `max` bytes, to be freed. 0 when it exits with 0;
 * 1 for any other end; -ENOENT when there is no such program; -errno.
 */
int run_program(char *const *argv, size_t max, char **text);
