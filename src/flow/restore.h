/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * From an image directory to a running VM: QEMU maps the image's pages as its
 * RAM, private and copy-on-write, and reads a small stream with the rest. The
 * image does not change, so many VMs can run from one.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "image/reader.h"

struct restore_options {
	const char *image;
	const char *program; /* QEMU; NULL: as recorded */
	/* A whole command line instead of the recorded one, or NULL. */
	char *const *argv;
	size_t n_args;
	const char *dir; /* for what the VM writes; NULL: make one */
	const char *qmp; /* a further QMP socket to listen on, or NULL */
	bool eager;	 /* read all RAM before the guest runs */
	bool print;	 /* only say what would be run */
	bool disks_as_is;
	bool changed_disks; /* use them all the same */
};

/* Whether it is of a VM: 0, or RESULT_FAILED, logged. Warns of what makes it
 * unsafe. */
int restore_check_image(const struct image *image);

struct restore_report {
	pid_t pid;
	bool running;	     /* false: it was paused, and is again */
	bool eager;	     /* all RAM was read */
	uint64_t started_ns; /* from its start until it ran, or could */
	char *dir;	     /* where its sockets, logs and disks are */
	char *command;	     /* as one types it */
};

void restore_report_deinit(struct restore_report *report);

/*
 * Starts the VM and leaves it running. With `print` only `command` and `eager`
 * are filled in. RESULT_* or -errno, logged; nothing is left then.
 */
int flow_restore(const struct restore_options *options,
		 struct restore_report *report);
