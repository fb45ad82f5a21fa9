/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/record.h"

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/io.h"
#include "base/util.h"

#define RECORD_MAX (1 * GIB)

static void *grow(struct record *record, size_t len)
{
	size_t size = record->size ? record->size : 4096;
	uint8_t *data;

	while (size - record->len < len)
		size *= 2;
	if (size != record->size) {
		data = realloc(record->data, size);
		if (!data)
			return NULL;
		record->data = data;
		record->size = size;
	}
	record->len += len;
	return record->data + record->len - len;
}

static int append_u32(struct record *record, uint32_t value)
{
	uint8_t *p = grow(record, sizeof(value));

	if (!p)
		return -ENOMEM;
	value = htole32(value);
	memcpy(p, &value, sizeof(value));
	return 0;
}

int record_init(struct record *record, uint32_t magic)
{
	*record = (struct record){};
	return append_u32(record, magic);
}

int record_append(struct record *record, const ProtobufCMessage *message)
{
	size_t len = protobuf_c_message_get_packed_size(message);
	uint8_t *p;
	int r;

	if (len > INT_MAX)
		return -EMSGSIZE;
	r = append_u32(record, (uint32_t)len);
	if (r)
		return r;
	p = grow(record, len);
	if (!p)
		return -ENOMEM;
	protobuf_c_message_pack(message, p);
	return 0;
}

static bool read_u32(struct record *record, uint32_t *value)
{
	if (record->len - record->pos < sizeof(*value))
		return false;
	memcpy(value, record->data + record->pos, sizeof(*value));
	*value = le32toh(*value);
	record->pos += sizeof(*value);
	return true;
}

int record_read(struct record *record, int dir_fd, const char *name,
		uint32_t magic)
{
	uint32_t found;
	int r;

	*record = (struct record){};
	r = io_read_regular(dir_fd, name, RECORD_MAX, (char **)&record->data,
			    &record->len);
	if (r)
		return r;
	if (!read_u32(record, &found) || found != magic) {
		record_deinit(record);
		return -EBADMSG;
	}
	return 0;
}

ProtobufCMessage *record_next(struct record *record,
			      const ProtobufCMessageDescriptor *type)
{
	size_t pos = record->pos;
	ProtobufCMessage *message;
	uint32_t len;

	if (!read_u32(record, &len) || len > record->len - record->pos) {
		record->pos = pos;
		return NULL;
	}
	message = protobuf_c_message_unpack(type, NULL, len,
					    record->data + record->pos);
	if (!message) {
		record->pos = pos;
		return NULL;
	}
	record->pos += len;
	return message;
}
