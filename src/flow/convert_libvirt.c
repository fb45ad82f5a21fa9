/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/convert_formats.h"

#include "base/log.h"
#include "base/result.h"
#include "flow/output.h"
#include "qemu/libvirt_save.h"

int convert_libvirt(const struct image *image, struct output *output)
{
	const struct image_machine *machine = &image->machine;
	struct savevm_sink sink = { output_append, output };
	int r;

	if (!machine->domain_xml) {
		log_error(
			"%s: has no XML of libvirt, for it was not dumped with --domain; name a file that has the domain's with --domain-xml (virsh dumpxml --migratable --security-info)",
			image->path);
		return RESULT_FAILED;
	}
	r = libvirt_save_begin(&sink, machine->domain_xml, machine->running);
	return r ? r : convert_stream(image, true, &sink);
}
