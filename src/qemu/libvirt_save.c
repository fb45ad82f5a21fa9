/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/libvirt_save.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/util.h"

/* As much as libvirt itself leaves, so that who edits has no less. */
#define ROOM (64 * KIB)

struct header {
	char magic[16]; /* without NUL */
	uint32_t version;
	uint32_t data_len;
	uint32_t was_running;
	uint32_t format;
	uint32_t cookie_offset;
	uint32_t unused[14];
};

int libvirt_save_begin(const struct savevm_sink *sink, const char *xml,
		       bool running)
{
	static const char magic[] = "LibvirtQemudSave";
	struct header header = { .version = 2, .was_running = running };
	size_t xml_len = strlen(xml), len;
	_cleanup_free_ char *head = NULL;

	if (xml_len > UINT32_MAX - ROOM - 1)
		return -EMSGSIZE;
	header.data_len = (uint32_t)(xml_len + 1 + ROOM);
	memcpy(header.magic, magic, sizeof(header.magic));

	len = sizeof(header) + header.data_len;
	head = calloc(1, len);
	if (!head)
		return -ENOMEM;
	memcpy(head, &header, sizeof(header));
	memcpy(head + sizeof(header), xml, xml_len);
	return sink->write(sink->opaque, 0, head, len);
}
