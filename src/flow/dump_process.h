/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A consistent snapshot of a running process that is not a QEMU, or of one with
 * all its descendants: its memory, and the registers of its threads, as they
 * were at one instant.
 */

#include "base/watch.h"
#include "flow/dump.h"

/* As flow_dump(), for a process. */
int dump_process(const struct dump_options *options, struct watch *watch,
		 struct dump_report *report);
