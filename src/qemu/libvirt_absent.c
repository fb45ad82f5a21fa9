/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/libvirt.h"

#include <errno.h>
#include <stddef.h>

#include "base/log.h"
#include "base/result.h"

/* Where the headers of libvirt were not there to build with. */

int libvirt_open(const char *uri, const char *domain, struct libvirt **out)
{
	(void)uri;
	(void)out;
	log_error(
		"domain %s: this snapuffd was built without libvirt; use --pid",
		domain);
	return RESULT_UNSUPPORTED;
}

struct libvirt *libvirt_free(struct libvirt *libvirt)
{
	(void)libvirt;
	return NULL;
}

int libvirt_command(struct libvirt *libvirt, const char *command, int fd,
		    char **answer)
{
	(void)libvirt;
	(void)command;
	(void)fd;
	(void)answer;
	return -ENOTCONN;
}

int libvirt_reopen(struct libvirt *libvirt)
{
	(void)libvirt;
	return -ENOTCONN;
}

int libvirt_get_xml(struct libvirt *libvirt, char **xml)
{
	(void)libvirt;
	(void)xml;
	return -ENOTCONN;
}

const char *libvirt_error(const struct libvirt *libvirt)
{
	(void)libvirt;
	return "";
}

const char *libvirt_uuid(const struct libvirt *libvirt)
{
	(void)libvirt;
	return "";
}
