/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "qemu/courier.h"
#include "qemu/qmp.h"
#include "target/target.h"

/*
 * Connects to the monitor of a target that must be a QEMU: through the courier
 * of its domain, unless that is NULL; at `qmp_path`; or wherever it is found.
 * RESULT_UNSUPPORTED after one line when it is none, or has no free monitor.
 */
int connect_vm(const struct target *target, const char *qmp_path,
	       struct courier *courier, struct qmp **out);
