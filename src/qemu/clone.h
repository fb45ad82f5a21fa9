/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Changes of a VM's command line for a second VM that comes from an image:
 * machine, RAM, disks.
 */

#include <stdbool.h>
#include <stdint.h>

#include "qemu/cmdline.h"

/* "pc", "q35", …, of -machine or -M; to be freed. NULL: it names none, which
 * means QEMU's default. *r is 0, -EINVAL (logged), or -ENOMEM. */
char *clone_get_machine(const struct cmdline *line, int *r);

/* Pins the machine to a class, "pc-q35-7.2": an alias means another one in each
 * version of QEMU. */
int clone_set_machine(struct cmdline *line, const char *class);

/* Bytes of -m, without what is to be plugged in; 0, or -EINVAL for one that
 * cannot be read, logged. */
int clone_get_memory(const struct cmdline *line, uint64_t *bytes);

/* How a file is mapped as RAM so that it does not change. */
enum clone_file {
	/* Opened for reading (QEMU 8.2 and later). */
	CLONE_FILE_READ_ONLY,
	/* Opened for writing, mapped private: QEMU must be kept from punching
	 * holes into it (sys/deny.h). */
	CLONE_FILE_PRIVATE,
};

/*
 * Makes the RAM block `idstr` of `size` bytes a private mapping of `path`: its
 * -object is replaced, or, for the machine's own RAM, added. -ENOENT: the
 * command line has no object for it, and it is not the machine's.
 */
int clone_back_ram(struct cmdline *line, const char *idstr, uint64_t size,
		   const char *path, enum clone_file how);

/* The value of -object for such a mapping, CLONE_FILE_PRIVATE, whose block is
 * named as the object; to be freed. NULL: no memory. */
char *clone_print_ram(const char *id, uint64_t size, const char *path);

/*
 * RAM in a file that the original has mapped, too, would be shared with it:
 * such objects become plain memory. 0, -EINVAL (logged), or -ENOMEM.
 */
int clone_unshare_ram(struct cmdline *line);

/*
 * The next disk that QEMU would write to, from option *i on; moves *i behind
 * it. 1 and its file as it is named, to be freed; 0: no more; -EINVAL (logged).
 */
int clone_next_disk(const struct cmdline *line, size_t *i, char **file);

/* Whether there is an -object or -device of that id. */
bool clone_has_id(const struct cmdline *line, const char *id);

/*
 * Has every disk that is `file` (an absolute path; what the command line says
 * is relative to `cwd`) be the qcow2 image `overlay` instead. -ENOENT: no
 * option names it.
 */
int clone_replace_disk(struct cmdline *line, const char *cwd, const char *file,
		       const char *overlay);
