/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A command that the user has run while the VM stands: `/bin/sh -c COMMAND`,
 * with nothing on its stdin and our stderr for its output.
 *
 * It is forked early, by a helper process that waits: before the dumper has
 * threads, while it has all capabilities (LVM needs root's), and so that the
 * pause holds no fork of a process with buffers of hundreds of MiB. Helper and
 * command are a session of their own, which is killed as a whole when the time
 * is over and also, by the helper, when the dumper dies.
 */

#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct hook {
	pid_t pid; /* the helper, leader of the session; -1: no command */
	int sock;
	pid_t target_pid; /* for messages */
	unsigned timeout_s;
	uint64_t took_ns; /* once it was run */
};

#define HOOK_INIT ((struct hook){ .pid = -1, .sock = -1 })

struct hook_env {
	const char *name;
	const char *value; /* NULL: not set */
};

/* Forks the helper; `env` ends with a NULL name. 0 or -errno, logged. */
int hook_start(struct hook *hook, const char *command, unsigned timeout_s,
	       pid_t target_pid, const struct hook_env *env);

/*
 * Runs the command, once, and waits for its end; nothing where none was given.
 * RESULT_FAILED, logged, when it fails or takes too long; -EINTR when we are to
 * give up; -errno.
 */
int hook_run(struct hook *hook);

/* Ends the helper; what a command that succeeded left in the background is not
 * touched. */
void hook_stop(struct hook *hook);
