/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The directory of a restored VM: its sockets, logs and disks. Removed with all
 * that is in it, unless it was kept.
 */

#include <stdbool.h>

#include "base/cleanup.h"

struct clone_dir {
	char *path;
	bool made;
};

/* Makes `path`, which must not exist; NULL: one below /var/tmp. With `pretend`
 * it is only named. 0 or -errno, logged. */
int clone_dir_init(struct clone_dir *dir, const char *path, bool pretend);
void clone_dir_keep(struct clone_dir *dir);
void clone_dir_deinit(struct clone_dir *dir);

#define _cleanup_clone_dir_ _cleanup_(clone_dir_deinit)
