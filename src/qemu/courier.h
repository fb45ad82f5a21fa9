/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A process that speaks QMP to us and libvirt to the other side: what is sent
 * to its socket is run by the monitor of a domain, which libvirt holds. To
 * everyone else the socket is a monitor like any other; also to a keeper that
 * has a copy of it when the dumper has died, so the courier has a session of
 * its own, no signal but SIGKILL ends it, and it serves until every copy of the
 * socket is closed. One that is killed is replaced by another: a second process
 * is there for that alone.
 *
 * When libvirt's daemon goes away it waits for it to come back; and since a
 * dead daemon leaves the monitor free, a command that cannot wait is meanwhile
 * sent there, on a connection that is closed at once: the daemon would not
 * bear to find it busy when it comes back.
 *
 * To be started while the process has no threads.
 */

#include <sys/types.h>

#include "base/cleanup.h"

struct courier {
	pid_t pid;
	pid_t domain_pid; /* the QEMU */
	int sock;	  /* qmp_open_fd() takes it */
	char *xml;	  /* of the domain, as libvirt_get_xml() */
};

#define COURIER_INIT ((struct courier){ .pid = -1, .sock = -1 })

/*
 * `uri` may be NULL; see libvirt_open(). 0; RESULT_UNSUPPORTED or -errno,
 * logged: also for a domain whose process is not seen from here.
 */
int courier_start(struct courier *courier, const char *uri, const char *domain);

/* The socket must be closed by now, if it was taken. */
void courier_stop(struct courier *courier);

#define _cleanup_courier_ _cleanup_(courier_stop)
