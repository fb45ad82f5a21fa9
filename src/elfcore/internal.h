/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "image/image.h"

/* Bytes that grow. What is appended after memory ran out is dropped; whoever
 * takes the bytes looks at `failed`. */
struct buffer {
	uint8_t *data;
	size_t len, size;
	bool failed;
};

/* `len` bytes of zeros at the end; NULL without memory. */
void *buffer_grow(struct buffer *buffer, size_t len);
void buffer_append(struct buffer *buffer, const void *data, size_t len);
/* Zeros up to a multiple of `to`. */
void buffer_align(struct buffer *buffer, size_t to);

static inline void buffer_deinit(struct buffer *buffer)
{
	free(buffer->data);
}

#define _cleanup_buffer_ _cleanup_(buffer_deinit)

/* The PT_NOTE segment. */
void elfcore_add_notes(struct buffer *tail,
		       const struct image_process *process);

/* The PT_LOAD headers; returns how many. The regions ascend. */
size_t elfcore_add_loads(struct buffer *tail,
			 const struct image_process *process,
			 const struct image_region *const *sorted, size_t n);
