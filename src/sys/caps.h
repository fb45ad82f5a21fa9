/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Capabilities of the calling thread, by libcap. 0 or -errno, no logging.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/capability.h>

bool caps_have(cap_value_t cap);

/*
 * Gives up, for this thread and those it makes, every capability but the ones
 * listed, of which it keeps those that it has; none for `n_keep` 0. There is no
 * way back.
 */
int caps_reduce(const cap_value_t *keep, size_t n_keep);
