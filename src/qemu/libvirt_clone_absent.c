/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stddef.h>

#include "base/log.h"
#include "base/result.h"
#include "qemu/domain_xml.h"
#include "qemu/libvirt_clone.h"

/* Where the headers of libvirt or libxml2 were not there to build with: no text
 * is ever parsed, and nothing else gets one. */

int domain_xml_parse(const char *text, const char *subject,
		     struct domain_xml **out)
{
	(void)text;
	(void)out;
	log_error(
		"%s: this snapuffd was built without libvirt and libxml2; without --domain, restore runs it outside of libvirt",
		subject);
	return RESULT_UNSUPPORTED;
}

struct domain_xml *domain_xml_free(struct domain_xml *xml)
{
	(void)xml;
	return NULL;
}

char *domain_xml_print(struct domain_xml *xml)
{
	(void)xml;
	return NULL;
}

char *domain_xml_get_name(struct domain_xml *xml)
{
	(void)xml;
	return NULL;
}

int domain_xml_rename(struct domain_xml *xml, const char *name)
{
	(void)xml;
	(void)name;
	return RESULT_UNSUPPORTED;
}

size_t domain_xml_count_interfaces(struct domain_xml *xml)
{
	(void)xml;
	return 0;
}

int domain_xml_detach(struct domain_xml *xml, const char *dir)
{
	(void)xml;
	(void)dir;
	return RESULT_UNSUPPORTED;
}

int domain_xml_replace_disk(struct domain_xml *xml, const char *file,
			    const char *overlay)
{
	(void)xml;
	(void)file;
	(void)overlay;
	return RESULT_UNSUPPORTED;
}

int domain_xml_check_disks(struct domain_xml *xml, const char *dir)
{
	(void)xml;
	(void)dir;
	return RESULT_UNSUPPORTED;
}

bool domain_xml_has_plain_ram(struct domain_xml *xml)
{
	(void)xml;
	return false;
}

int domain_xml_add_argument(struct domain_xml *xml, const char *argument)
{
	(void)xml;
	(void)argument;
	return RESULT_UNSUPPORTED;
}

int libvirt_clone_ask(const char *uri, const char *name,
		      struct domain_host *host)
{
	(void)uri;
	(void)name;
	(void)host;
	return RESULT_UNSUPPORTED;
}

int libvirt_clone_start(const char *uri, const char *definition,
			const char *save)
{
	(void)uri;
	(void)definition;
	(void)save;
	return RESULT_UNSUPPORTED;
}
