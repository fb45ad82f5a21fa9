/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The device state, by QMP's xen-save-devices-state into a memfd that QEMU is
 * handed through add-fd. No path, no permission, no disk, so it costs little
 * while the VM is stopped. Facts: migration/savevm.c,
 * qmp_xen_save_devices_state(); the descriptor must be O_WRONLY, for
 * /dev/fdset/N looks for one of exactly the access mode that it opens with.
 *
 * prepare (running) -> save (stopped) -> finish (running again) -> deinit
 */

#include <stddef.h>
#include <stdint.h>

#include "qemu/qmp.h"

/* More than any real device state; what is larger is refused. */
#define DEVSTATE_MAX ((size_t)1 << 30)

struct devstate {
	struct qmp *qmp; /* not owned; NULL once QEMU has nothing of ours */
	int64_t fdset_id;
	int memfd;
	/* After devstate_finish(): the whole file, "QEVM" to the final 00. */
	const uint8_t *data;
	size_t len;
};

#define DEVSTATE_INIT ((struct devstate){ .memfd = -1 })

/* The set's id is our pid, so that a guardian knows it without being told. */
int devstate_prepare(struct devstate *state, struct qmp *qmp);

/* The VM must be stopped; it stays so. */
int devstate_save(struct devstate *state);

/*
 * Takes the descriptor back from QEMU, maps the result at `data`, and checks
 * its frame: QEVM, version 3, sections, a last 00.
 */
int devstate_finish(struct devstate *state);

/* Whether these bytes are framed so; 0 or -EPROTO, not logged. */
int devstate_check(const void *data, size_t len);

/* Also takes the descriptor back from QEMU if that was not done. */
void devstate_deinit(struct devstate *state);

#define _cleanup_devstate_ _cleanup_(devstate_deinit)
