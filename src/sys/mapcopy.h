/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Copies out of a mapped file that somebody else may truncate meanwhile, which
 * otherwise is the end of the process that reads (SIGBUS). Any thread; it has
 * the signal unblocked from then on.
 */

#include <stddef.h>

/* Installs the handler of SIGBUS; once, before any copy. 0 or -errno. */
int mapcopy_install(void);

/* 0, or -EFAULT when a page of `from` was not there to be read. */
int mapcopy(void *to, const void *from, size_t len);
