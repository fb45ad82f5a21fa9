/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "elfcore/internal.h"

#include <string.h>

void *buffer_grow(struct buffer *buffer, size_t len)
{
	size_t size = buffer->size ? buffer->size : 4096;
	uint8_t *data;

	while (size - buffer->len < len)
		size *= 2;
	if (size != buffer->size) {
		data = buffer->failed ? NULL : realloc(buffer->data, size);
		if (!data) {
			buffer->failed = true;
			return NULL;
		}
		buffer->data = data;
		buffer->size = size;
	}
	buffer->len += len;
	return memset(buffer->data + buffer->len - len, 0, len);
}

void buffer_append(struct buffer *buffer, const void *data, size_t len)
{
	void *to = buffer_grow(buffer, len);

	if (to && len)
		memcpy(to, data, len);
}

void buffer_align(struct buffer *buffer, size_t to)
{
	buffer_grow(buffer, (to - buffer->len % to) % to);
}
