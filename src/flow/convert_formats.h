/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The formats that flow_convert() knows, each in a file of its own: writes all
 * to what is open, or made, already. Errors as there, but that -EINTR is not
 * logged; whoever called removes what there is then.
 */

#include <stdbool.h>

#include "flow/convert.h"
#include "flow/output.h"
#include "image/reader.h"

/* Without the pages of imagewalk_is_ram() unless `with_ram`. */
int convert_qemu(const struct image *image, bool with_ram,
		 struct output *output);
int convert_mapped(const struct image *image, struct output *output);
/* Of an image that has a domain's XML. */
int convert_libvirt(const struct image *image, struct output *output);
/* Of an image that has memory.core; `streams`: in order, holes too. */
int convert_core(const struct image *image, bool streams,
		 struct output *output);
int convert_raw(const struct image *image, const char *dir);

/* One of these, or a line about an image that cannot be converted so. `out` is
 * the path, of which `output` is open unless it is a directory. */
int convert_image(const struct image *image, enum convert_format format,
		  const char *out, struct output *output);
