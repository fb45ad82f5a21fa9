/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* A consistent snapshot of a running VM. */

#include "base/watch.h"
#include "flow/dump.h"

/* As flow_dump(), for a QEMU. */
int dump_vm(const struct dump_options *options, struct watch *watch,
	    struct dump_report *report);
