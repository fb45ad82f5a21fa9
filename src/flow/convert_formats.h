/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The formats that flow_convert() knows, each in a file of its own. `out` and
 * errors as there, but that -EINTR is not logged.
 */

#include <stdbool.h>

#include "image/reader.h"

/* Without the pages of imagewalk_is_ram() unless `with_ram`. */
int convert_qemu(const struct image *image, bool with_ram, const char *out);
int convert_mapped(const struct image *image, const char *out);
/* Of an image that has memory.core. */
int convert_core(const struct image *image, const char *out);
int convert_raw(const struct image *image, const char *dir);
