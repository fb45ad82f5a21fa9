/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A log-linear histogram of durations in nanoseconds, as HDR histograms are:
 * 32 steps to each power of two, so a quantile is right within about 3 %.
 * One thread records; others read a copy (histogram_copy), which may be behind
 * by what is recorded meanwhile.
 */

#include <stddef.h>
#include <stdint.h>

#define HISTOGRAM_STEP_BITS 5
#define HISTOGRAM_STEPS	    (1 << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS   (HISTOGRAM_STEPS * 36) /* up to 2^40 ns, 18 min */

struct histogram {
	uint64_t counts[HISTOGRAM_BUCKETS];
	uint64_t n;
	uint64_t max; /* exact */
};

void histogram_record(struct histogram *h, uint64_t ns);

void histogram_copy(struct histogram *to, const struct histogram *from);

/* What `now` counted that `before`, an earlier copy of it, had not. */
void histogram_subtract(struct histogram *now, const struct histogram *before);

/* The duration in ns that a share `q` (0 … 1) of all values does not exceed;
 * 0 when there is none. */
uint64_t histogram_quantile(const struct histogram *h, double q);

/* The largest value that bucket `i` counts. */
uint64_t histogram_bucket_limit(size_t i);
