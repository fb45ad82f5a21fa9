/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include "flow/check.h"
#include "target/target.h"

/* Fills in what there is to say of a process that is no QEMU; it is not
 * touched. 0, or an error that is logged. */
int check_process(struct check_report *report, const struct target *target);
