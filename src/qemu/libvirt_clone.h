/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * libvirt's side of a domain that comes from an image. Each call is a process
 * of its own, which loads libvirt and ends (qemu/libvirt.h says why). The
 * calling process must have one thread. `uri` as for libvirt_open().
 */

#include "qemu/domain_xml.h"

/* Whether there can be a new domain of that name, and of what kind the host is:
 * 0; RESULT_UNSUPPORTED where not, or -errno; logged. */
int libvirt_clone_ask(const char *uri, const char *name,
		      struct domain_host *host);

/*
 * Defines the domain by the XML `definition` and starts it from the save image
 * at `save`, which must be of the same name and UUID. RESULT_FAILED, logged:
 * it is not defined any more.
 */
int libvirt_clone_start(const char *uri, const char *definition,
			const char *save);
