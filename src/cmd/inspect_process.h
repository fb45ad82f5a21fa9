/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* What `inspect` shows of the image of a process. */

#include <jansson.h>

#include "image/image.h"

/* Adds the keys "process" and "mappings". */
void process_to_json(json_t *object, const struct image_process *process);

/* Some lines on standard output. */
void process_print(const struct image_process *process);
