/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The XML of a domain of libvirt, changed for a second domain that comes from
 * an image. Format: libvirt.org/formatdomain.html. libxml2 is loaded with the
 * first text, so the rest of the program runs where there is none; it loads
 * nothing that a text names. Whatever a text says that is not understood stays
 * as it is.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/cleanup.h"

struct domain_xml;

/* `subject` is whose it is, for errors; both are copied. 0; RESULT_FAILED for
 * what is no domain, RESULT_UNSUPPORTED without libxml2, -ENOMEM; logged. */
int domain_xml_parse(const char *text, const char *subject,
		     struct domain_xml **out);

/* Always returns NULL; NULL is fine. */
struct domain_xml *domain_xml_free(struct domain_xml *xml);

static inline void domain_xml_freep(struct domain_xml **xml)
{
	*xml = domain_xml_free(*xml);
}

#define _cleanup_domain_xml_ _cleanup_(domain_xml_freep)

/* To be freed; NULL: no memory. */
char *domain_xml_print(struct domain_xml *xml);

/* To be freed; NULL: it has none. */
char *domain_xml_get_name(struct domain_xml *xml);

/* Gives it a name, and a UUID and MAC addresses that nobody has. 0 or -errno,
 * logged. */
int domain_xml_rename(struct domain_xml *xml, const char *name);

/* How many network interfaces it has. */
size_t domain_xml_count_interfaces(struct domain_xml *xml);

/*
 * What two domains cannot both have: files and sockets that character devices
 * make are in `dir` from now on, those that reach elsewhere lead to nothing;
 * ports of displays are libvirt's choice. 0; RESULT_UNSUPPORTED, logged, where
 * there is a state in files that are not in an image (UEFI variables, a TPM);
 * -ENOMEM.
 */
int domain_xml_detach(struct domain_xml *xml, const char *dir);

/* Has the disks whose file or block device is `file` be the qcow2 `overlay`.
 * -ENOENT: none is. */
int domain_xml_replace_disk(struct domain_xml *xml, const char *file,
			    const char *overlay);

/* Whether each disk that can be written to is in `dir`: 0, or RESULT_FAILED
 * with one line of another. */
int domain_xml_check_disks(struct domain_xml *xml, const char *dir);

/* Whether its RAM is one private block of small pages, which arguments of
 * QEMU's can replace. */
bool domain_xml_has_plain_ram(struct domain_xml *xml);

/* Adds an argument for QEMU (qemu:commandline). 0, RESULT_FAILED, logged, where
 * it has both prefixes that could be used, or -ENOMEM. */
int domain_xml_add_argument(struct domain_xml *xml, const char *argument);

/* Of `virsh capabilities`: as whom domains run, and whether AppArmor or SELinux
 * confines them. */
struct domain_host {
	uid_t uid;
	gid_t gid;
	bool confined;
};

/* 0, or as domain_xml_parse(). */
int domain_xml_read_host(const char *capabilities, struct domain_host *host);
