/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/convert.h"

#include <errno.h>

#include "base/log.h"
#include "base/result.h"
#include "flow/convert_formats.h"

static int require_qemu(const struct image *image)
{
	if (image->inventory.kind == IMAGE_KIND_QEMU)
		return 0;
	log_error(
		"%s: is the image of a process, not of a QEMU; it has no migration stream",
		image->path);
	return RESULT_FAILED;
}

static int require_core(const struct image *image)
{
	if (image->frame.tail_offset)
		return 0;
	log_error("%s: is not the image of a process; it has no core",
		  image->path);
	return RESULT_FAILED;
}

int flow_convert(const struct image *image, enum convert_format format,
		 const char *out)
{
	int r = -EINVAL;

	switch (format) {
	case CONVERT_QEMU:
	case CONVERT_DEVICES:
		r = require_qemu(image);
		if (!r)
			r = convert_qemu(image, format == CONVERT_QEMU, out);
		break;
	case CONVERT_MAPPED_RAM:
		r = require_qemu(image);
		if (!r)
			r = convert_mapped(image, out);
		break;
	case CONVERT_CORE:
		r = require_core(image);
		if (!r)
			r = convert_core(image, out);
		break;
	case CONVERT_RAW:
		r = convert_raw(image, out);
		break;
	}
	if (r == -EINTR)
		log_error("%s: interrupted; nothing was kept", out);
	return r;
}
