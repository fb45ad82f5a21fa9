/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The signal flag. SIGINT, SIGTERM and SIGHUP ask the program to give up in
 * good order: long loops look at the flag and return -EINTR.
 */

#include <stdbool.h>

/* Installs the handlers, without SA_RESTART, and ignores SIGPIPE. */
void interrupt_install(void);

bool interrupt_pending(void);
