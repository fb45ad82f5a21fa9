/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A process beside the dumper that is there for the target when the dumper is
 * not (flow/keeper.h, flow/watchdog.h).
 */

/* After fork(2): a session of its own, and no signal but SIGKILL and SIGSTOP
 * reaches it. */
void guardian_begin(const char *name);
