/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What every dump does alike before and after the capture engine runs.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/capability.h>

#include "capture/capture.h"
#include "image/image.h"

/* Before anything is touched: RESULT_UNSUPPORTED, logged, when this kernel has
 * not what no dump can do without. */
int setup_check_kernel(void);

/* The best that this kernel has for the kinds of memory that there are, and
 * `also`, which every kernel has that passes the check. */
int setup_choose_features(uint64_t also, uint64_t *features);

/* A share of the memory that is free, here and in the cgroup that we are in; no
 * more than `bytes_all` may need. */
uint64_t setup_choose_buffer(uint64_t bytes_all);

/*
 * Gives up what is not done from here on. Kept: to read the target's memory, to
 * raise priorities, to write to a directory that may be another user's, or at
 * least to read what the target maps; and `also`, at most SETUP_ALSO_MAX.
 */
#define SETUP_ALSO_MAX 4
int setup_drop_capabilities(const cap_value_t *also, size_t n_also);

void setup_fill_stats(struct image_stats *stats, struct capture *capture);

/* CLOCK_REALTIME in nanoseconds. */
uint64_t setup_unix_ns(void);
