/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What a QEMU program says of itself when asked on its command line.
 */

#include "base/cleanup.h"

struct qemu_binary {
	char *program;
	int major, minor, micro;
	char *machines; /* what -machine help prints */
};

/* 0; RESULT_FAILED, logged, for one that cannot be run or is no QEMU. */
int qemu_binary_init(struct qemu_binary *binary, const char *program);
void qemu_binary_deinit(struct qemu_binary *binary);

#define _cleanup_qemu_binary_ _cleanup_(qemu_binary_deinit)

/* The class behind an alias ("pc" -> "pc-i440fx-7.2"), or the name itself; NULL
 * for the default one. -ENOENT: it has no such machine; -ENOMEM. To be freed.
 */
int qemu_binary_machine(const struct qemu_binary *binary, const char *name,
			char **class);
