/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Gives up what a process does not need to read an image that somebody else has
 * made: for the rest of its life, and for its threads and children. No new
 * privileges (prctl(2)); a list of the system calls that remain (seccomp(2), by
 * libseccomp), the others fail with EPERM, no network, no exec, no new process,
 * no ptrace among them; and, where the kernel has it (since 5.13), Landlock:
 * files are opened in the named directories only. Descriptors that are open
 * stay as they are. No logging.
 */

#include <stdbool.h>

struct sandbox {
	const char *read;  /* a directory, read below it; NULL: none */
	const char *write; /* files may be made and written in it; NULL: none */
};

/*
 * The process must have one thread. 0, or -errno: of opening one of the
 * directories, which comes first, or of what the kernel refused; without
 * Landlock it goes on. A build with the address or thread sanitizer, which
 * needs more than this leaves, only gives up new privileges.
 */
int sandbox_enter(const struct sandbox *sandbox);

/* Whether this build enters a sandbox in whole. */
bool sandbox_is_whole(void);
