/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What may write to the RAM of a VM other than through its own page tables, and
 * whether it is dumped all the same.
 */

#include "flow/dump.h"
#include "flow/ram.h"
#include "flow/writers.h"
#include "qemu/qmp.h"

/* What there is, whoever is covered: for `writers`, whose files are RAM. */
struct vm_writers_found {
	struct vm_strings dma;	    /* devices, pinned memory */
	struct vm_strings backends; /* devices with another process */
	struct vm_strings others;   /* processes that are not covered */
};

void vm_writers_found_deinit(struct vm_writers_found *found);

#define _cleanup_vm_writers_found_ _cleanup_(vm_writers_found_deinit)

/* Looks; nothing is touched. 0, or RESULT_* / -errno after one error line. */
int vm_writers_find(struct vm_writers_found *found, struct writers *writers,
		    const struct writers_policy *policy,
		    const struct target *target, struct qmp *qmp,
		    const struct ram *ram);

/*
 * The same, by the options: `writers` are then those to be covered. What is
 * accepted is in `unsafe`; RESULT_UNSUPPORTED when something is not.
 */
int vm_writers_judge(const struct dump_options *options,
		     const struct target *target, struct qmp *qmp,
		     const struct ram *ram, struct writers *writers,
		     struct vm_strings *unsafe);
