/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <stdint.h>

/*
 * How many bytes the memory cgroups that this process is in leave of their
 * limits (v2: memory.max and memory.high; v1: memory.limit_in_bytes), their
 * inactive page cache counted as free; UINT64_MAX: there is no limit. Whoever
 * takes more is killed. No logging.
 */
uint64_t memlimit_headroom(void);
