/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <string.h>

#include "base/cleanup.h"
#include "qemu/domain_xml.h"

#define DIR "/clones/one"

/* The XML that an image has of a domain, made that of a clone. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	_cleanup_free_ char *text = fuzz_string(part);
	_cleanup_domain_xml_ struct domain_xml *xml = NULL;
	_cleanup_free_ char *name = NULL, *printed = NULL;

	fuzz_require(text);
	if (domain_xml_parse(text, "image", &xml))
		return 0;
	fuzz_require(!domain_xml_rename(xml, "a<&>'b"));
	name = domain_xml_get_name(xml);
	fuzz_require(!name || !strcmp(name, "a<&>'b"));
	if (domain_xml_detach(xml, DIR))
		return 0;
	domain_xml_replace_disk(xml, "/d.qcow2", DIR "/d&\"<.qcow2");
	domain_xml_check_disks(xml, DIR);
	domain_xml_has_plain_ram(xml);
	domain_xml_count_interfaces(xml);
	fuzz_require(domain_xml_add_argument(xml, "-object") >= 0);
	printed = domain_xml_print(xml);
	fuzz_require(printed);
	/* What is printed is XML again. */
	xml = domain_xml_free(xml);
	fuzz_require(!domain_xml_parse(printed, "print", &xml));
	return 0;
}
