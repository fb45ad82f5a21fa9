/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Starts a QEMU that loads a migration stream, and waits until its guest is
 * there. It is killed again unless launch_leave() is called.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "qemu/cmdline.h"
#include "qemu/qmp.h"

struct launch_options {
	const char *cwd;    /* NULL: ours */
	const char *log;    /* file that gets stdout and stderr of QEMU */
	bool deny_punching; /* sys/deny.h */
	bool keep_fds; /* ours that are not close-on-exec are QEMU's, too */
};

struct launch {
	pid_t pid;
	int pidfd;
	struct qmp *qmp; /* once the monitor greets */
	int qmp_fd;
	int stream_fd; /* to be written to, then closed, by the caller */
	uint64_t started_ns;
	const char *log;
	char *last_words; /* of a QEMU that ended: mostly why */
};

#define LAUNCH_INIT       \
	((struct launch){ \
		.pid = -1, .pidfd = -1, .qmp_fd = -1, .stream_fd = -1 })

/*
 * Adds to `line` a monitor of our own and -incoming, both on descriptors that
 * are handed down, and runs it. 0, RESULT_FAILED or -errno; logged.
 */
int launch_start(struct launch *launch, struct cmdline *line,
		 const struct launch_options *options);

/*
 * Waits until the stream is loaded and the guest runs, or, with `paused`,
 * could, while another thread writes the stream. -ECONNABORTED when QEMU ended:
 * not logged, since the cause may be who wrote; `last_words` is set. -EINTR,
 * -ENOMEM.
 */
int launch_wait(struct launch *launch, bool paused);

/* Lets it live on. */
void launch_leave(struct launch *launch);

/* Kills it if it was not left. */
void launch_deinit(struct launch *launch);

#define _cleanup_launch_ _cleanup_(launch_deinit)
