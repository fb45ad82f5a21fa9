/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The command line of a restored VM, from the recorded one or the caller's.
 */

#include <stdbool.h>

#include "flow/restore.h"
#include "image/reader.h"
#include "qemu/binary.h"
#include "qemu/cmdline.h"

/* Whether a file can be RAM without being open for writing; if not, QEMU must
 * be kept from punching holes into it. */
bool clone_keeps_files(const struct qemu_binary *binary);

/* A path that means the same wherever QEMU runs: `cwd` (NULL: ours) goes before
 * a relative one. To be freed; NULL: no memory. */
char *clone_absolute(const char *cwd, const char *path);

/*
 * Changes `line` to that of the new VM, but for what launch_start() adds. `dir`
 * is for the VM's own files, `path` the image's, absolute. *eager tells whether
 * all RAM has to be read before the VM runs. 0, RESULT_* or -errno; logged.
 */
int clone_cmdline(const struct restore_options *options,
		  const struct image *image, const struct qemu_binary *binary,
		  const char *dir, const char *path, struct cmdline *line,
		  bool *eager);
