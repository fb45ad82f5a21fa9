/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What of a VM's image who restores it needs: the machine, the regions without
 * their pages' index, and what makes it unsafe. A confined child reads the
 * image and checks it; this process gets a flat list of numbers and texts, so
 * that it never parses the image itself.
 */

#include <stddef.h>

#include "image/reader.h"

/*
 * As image_open(), but that nothing else of the image is filled in, and no
 * region has runs. To be closed with image_close(). 0, RESULT_* or -errno;
 * logged.
 */
int image_summary_open(struct image **out, const char *dir);

/*
 * The list itself, into an image that is all zeros and is filled in, to be
 * closed, either way. -EBADMSG: it is none, or holds what image_open() would
 * not let through.
 */
int image_summary_parse(const void *data, size_t len, struct image *image);
