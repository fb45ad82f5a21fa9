/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* What the files that encode and decode records have in common. */

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "image/codec.h"
#include "snapuffd.pb-c.h"
#include "snapuffd/image-format.h"

/* x86-64 user space, and far more than one file can hold. */
#define REGION_MAX_LENGTH ((uint64_t)1 << 47)

/* protobuf-c's optional scalars come with a has_ flag. */
#define SET(message, field, value)         \
	do {                               \
		(message).has_##field = 1; \
		(message).field = (value); \
	} while (0)

static inline ProtobufCBinaryData bytes_of(const char *s)
{
	return (ProtobufCBinaryData){ .len = strlen(s), .data = (uint8_t *)s };
}

static inline void free_message(void *p)
{
	ProtobufCMessage **message = p;

	if (*message)
		protobuf_c_message_free_unpacked(*message, NULL);
}

#define _cleanup_message_ _cleanup_(free_message)

/* One message that must be there; typed by its variable. */
#define NEXT(record, type) ((void *)record_next(record, &type))

/* A copy of untrusted bytes as a string: none may be NUL. */
static inline char *string_of(ProtobufCBinaryData bytes)
{
	if (bytes.len && memchr(bytes.data, 0, bytes.len))
		return NULL;
	return strndup(bytes.data ? (char *)bytes.data : "", bytes.len);
}

static inline int copy_string(const char *from, char **to)
{
	if (!from)
		return 0;
	*to = strdup(from);
	return *to ? 0 : -ENOMEM;
}
