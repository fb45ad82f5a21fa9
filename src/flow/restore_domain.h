/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * From the image of a libvirt domain to a second domain, which libvirt defines
 * and starts beside the first: with another name, UUID and MAC addresses, and
 * fresh overlays of its disks. libvirt is given a save image of devices and no
 * RAM, and arguments for QEMU that make a copy of the image's pages its RAM;
 * where that cannot be, all RAM is in the save image.
 */

#include <stdbool.h>
#include <stdint.h>

struct restore_domain_options {
	const char *image;
	const char *name; /* NULL: the old one and "-clone" */
	const char *connect;
	const char *dir; /* for what the domain writes; NULL: by its name */
	bool eager;	 /* all RAM in the save image */
	bool changed_disks;
};

struct restore_domain_report {
	char *name;
	char *dir;
	bool running; /* false: it was paused, and is again */
	bool eager;
	uint64_t started_ns; /* since libvirt was told */
	uint64_t took_ns;    /* in whole */
};

void restore_domain_report_deinit(struct restore_domain_report *report);

/* RESULT_* or -errno, logged; nothing is left then. The process must have one
 * thread. */
int flow_restore_domain(const struct restore_domain_options *options,
			struct restore_domain_report *report);
