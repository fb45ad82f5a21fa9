/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Record files: a magic, then length-prefixed protobuf messages. Built in
 * memory, written whole; read whole, walked message by message. No logging:
 * the caller knows which file it is.
 */

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct record {
	uint8_t *data;
	size_t len;
	size_t size; /* allocated */
	size_t pos;  /* of the next message to read */
};

static inline void record_deinit(struct record *record)
{
	free(record->data);
	*record = (struct record){};
}

#define _cleanup_record_ _cleanup_(record_deinit)

/* Starts an empty record of a kind. 0 or -ENOMEM. */
int record_init(struct record *record, uint32_t magic);

/* Appends one message. -ENOMEM, -EMSGSIZE from 2 GiB on. */
int record_append(struct record *record, const ProtobufCMessage *message);

/* Reads a record file of at most 1 GiB. -EBADMSG: its magic is another; others
 * as io_read_regular(). */
int record_read(struct record *record, int dir_fd, const char *name,
		uint32_t magic);

/*
 * Unpacks the next message; the caller frees it with
 * protobuf_c_message_free_unpacked(). NULL at the end, or when what follows
 * is no such message; record_at_end() tells which.
 */
ProtobufCMessage *record_next(struct record *record,
			      const ProtobufCMessageDescriptor *type);

static inline bool record_at_end(const struct record *record)
{
	return record->pos == record->len;
}
