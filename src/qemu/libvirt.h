/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A domain of libvirt's QEMU driver on this host, and its monitor. libvirt's
 * libraries are loaded when the first domain is opened, so the rest of the
 * program runs where there is none. They may start threads and read files:
 * this belongs into a process of its own (qemu/courier.h).
 */

#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"

#define LIBVIRT_DEFAULT_URI "qemu:///system"

/* "qemu+ssh://user@host/system": between "//" and the next '/' is a host. */
static inline bool libvirt_is_remote(const char *uri)
{
	const char *host = strstr(uri, "://");

	return host && host[3] != '/' && host[3];
}

struct libvirt;

/*
 * Connects to `uri`, or where that is NULL to $LIBVIRT_DEFAULT_URI, or to
 * qemu:///system, and looks for the domain by name, else by UUID. 0;
 * RESULT_UNSUPPORTED after one line: no library, no daemon, another host,
 * another driver, too old, no such domain, it does not run, a job of it is
 * under way; or -errno, logged.
 */
int libvirt_open(const char *uri, const char *domain, struct libvirt **out);

/* Always returns NULL; NULL is fine. */
struct libvirt *libvirt_free(struct libvirt *libvirt);

static inline void libvirt_freep(struct libvirt **libvirt)
{
	*libvirt = libvirt_free(*libvirt);
}

#define _cleanup_libvirt_ _cleanup_(libvirt_freep)

/*
 * Has the domain's monitor run a command, with descriptor `fd` unless that is
 * -1. `answer`, to be freed, gets what QEMU answered, also when that is an
 * error. -ENOTCONN: the daemon is gone; -EREMOTEIO: it refused, and
 * libvirt_error() says why. Takes as long as the daemon does.
 */
int libvirt_command(struct libvirt *libvirt, const char *command, int fd,
		    char **answer);

/* Connects anew, after -ENOTCONN. 0 or -ENOTCONN. */
int libvirt_reopen(struct libvirt *libvirt);

/*
 * The XML of the running domain, with its passwords, in the form that goes with
 * its memory: libvirt's own save file holds the same. To be freed. 0;
 * -ENOTCONN; -EREMOTEIO, libvirt_error() says why.
 */
int libvirt_get_xml(struct libvirt *libvirt, char **xml);

/* One line; never NULL. */
const char *libvirt_error(const struct libvirt *libvirt);

/* As libvirt prints it, 36 characters. */
const char *libvirt_uuid(const struct libvirt *libvirt);
