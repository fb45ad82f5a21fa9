/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The disks of a restored VM: for each one that can be written to, a fresh
 * qcow2 overlay of the image file as it was at the instant, so that neither the
 * VM that was dumped nor another clone notices.
 */

#include <stdbool.h>

#include "image/reader.h"
#include "qemu/cmdline.h"

/*
 * Makes the overlay of disk number `i` in `dir`. *file is the base, absolute;
 * both are to be freed, whatever is returned. As clone_disks().
 */
int clone_disk_make(const struct image *image, size_t i, bool changed,
		    const char *dir, char **file, char **overlay);

/*
 * Makes the overlays in `dir`, unless `pretend`, and has `line` use them.
 * RESULT_FAILED, logged, for a disk that is missing, is no file, or has changed
 * since the dump, unless `changed` allows that; RESULT_* or -errno.
 */
int clone_disks(const struct image *image, bool changed, bool pretend,
		const char *dir, struct cmdline *line);
