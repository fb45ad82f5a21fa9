/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the dumper asks of a VM over QMP: its state, whether it may be dumped,
 * stop and cont. Functions return 0, or -errno / RESULT_* after one error line.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "qemu/qmp.h"
#include "qemu/ramblock.h"
#include "sys/procfs.h"

struct vm_status {
	bool running;
	char state[32]; /* QEMU's RunState: "running", "paused", … */
};

/* A growing list of texts; zero-initialised is empty. */
struct vm_strings {
	char **items;
	size_t n_items;
};

int vm_strings_add(struct vm_strings *list, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void vm_strings_deinit(struct vm_strings *list);

#define _cleanup_vm_strings_ _cleanup_(vm_strings_deinit)

int vm_query_status(struct qmp *qmp, struct vm_status *status);

/*
 * For a VM that runs. Returns when the vCPUs stand and block I/O is drained
 * and flushed. A stop that failed without QEMU's refusal may still come to
 * pass: `cont` is due after it in any case. Does not log: qmp_error() tells
 * why.
 */
int vm_stop(struct qmp *qmp);

/*
 * Waits for the answer for `timeout_ms`. Tries also on a connection that has
 * failed. -EREMOTEIO when QEMU has refused; does not log: qmp_error()
 * tells why.
 */
int vm_cont(struct qmp *qmp, unsigned timeout_ms);

/*
 * Whether a VM in this state can be dumped and left as it was: running or
 * paused, not in the midst of a migration or of saving. Says why if not, with
 * RESULT_UNSUPPORTED.
 */
int vm_check_state(const struct vm_status *status);

/* Machine class as a stream names it, "pc-i440fx-7.2"; to be freed. */
int vm_query_machine(struct qmp *qmp, char **machine);

/*
 * Appends to `reasons` one line for each thing that forbids a snapshot:
 * devices that block migration, a migration or background snapshot under way,
 * state that xen-save-devices-state leaves out. An empty list: none does.
 */
int vm_list_blockers(struct qmp *qmp, struct vm_strings *reasons);

/*
 * Appends to `reasons` one line for each device that may write guest memory
 * behind the target's page tables: VFIO and vDPA DMA, RDMA.
 */
int vm_list_dma_writers(struct qmp *qmp, struct vm_strings *reasons);

/* The same for those that another process is the other half of, and writes
 * guest memory: vhost-user. */
int vm_list_backends(struct qmp *qmp, struct vm_strings *reasons);
