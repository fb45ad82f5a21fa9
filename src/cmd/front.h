/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The process that is started is only the front of another one, the engine,
 * which does the work. What an operator sends to the first, to its process
 * group or from its terminal does not reach the second: SIGINT, SIGTERM and
 * SIGHUP are handed on, and when the front dies, by SIGKILL or otherwise, the
 * engine is interrupted as by SIGTERM. So who holds a target's threads is not
 * killed while it does, and lets them go as it found them.
 *
 * The engine has a session of its own, so no terminal stops it. A front that is
 * stopped (SIGSTOP, Ctrl-Z) stops nothing else: nobody is to wait for its
 * shell.
 */

#include <stdbool.h>

/*
 * Returns twice, as fork(2) does; before there are threads, and before anything
 * is opened. In the engine it is false, and there is work to do. In the front
 * it is true, when the engine has ended: *result is its exit code, or -errno,
 * logged. Of an engine that was killed the front dies likewise.
 */
bool front_wait(int *result);
