/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The head of libvirt's save image, which `virsh restore` takes: what is in
 * front of the migration stream. Format: src/qemu/qemu_saveimage.h and .c in
 * libvirt's tree (virQEMUSaveHeader, virQEMUSaveDataWrite(),
 * qemuSaveImageReadHeader()), the same since its version 2, of 0.9. In the
 * order of the host's bytes:
 *
 *	char magic[16]		"LibvirtQemudSave"; while it is being written
 *				"LibvirtQemudPart", which no reader takes
 *	u32 version		2
 *	u32 data_len		of what is between header and stream
 *	u32 was_running		whether the domain runs when it is restored
 *	u32 format		of the stream: 0 raw; else a compressor
 *	u32 cookieOffset	into the data; 0: no cookie
 *	u32 unused[14]
 *	data			the XML and its NUL, the cookie and its NUL,
 *room for longer ones (save-image-edit) the stream		QEMU's, as it is
 *
 * The cookie is the CPU as QEMU had made it of the XML's; where it is missing
 * libvirt takes the XML's own (qemuDomainFixupCPUs(), "libvirt was too old").
 */

#include <stdbool.h>

#include "qemu/savevm.h"

/*
 * Writes it; the stream is to follow. `xml` is the domain's, without secrets
 * left out. 0, or what the sink returned.
 */
int libvirt_save_begin(const struct savevm_sink *sink, const char *xml,
		       bool running);
