/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/histogram.h"

#include "base/util.h"

static size_t bucket_of(uint64_t ns)
{
	unsigned top, shift;
	size_t i;

	if (ns < 2 * HISTOGRAM_STEPS)
		return (size_t)ns;
	top = 63 - (unsigned)__builtin_clzll(ns);
	shift = top - HISTOGRAM_STEP_BITS;
	i = (size_t)shift * HISTOGRAM_STEPS + (size_t)(ns >> shift);
	return i < HISTOGRAM_BUCKETS ? i : HISTOGRAM_BUCKETS - 1;
}

uint64_t histogram_bucket_limit(size_t i)
{
	size_t shift;

	if (i < 2 * HISTOGRAM_STEPS)
		return i;
	shift = i / HISTOGRAM_STEPS - 1;
	return ((uint64_t)(i - shift * HISTOGRAM_STEPS + 1) << shift) - 1;
}

/* One writer: a plain add would do, were it not for those who copy. */
static void add(uint64_t *to, uint64_t n)
{
	__atomic_store_n(to, *to + n, __ATOMIC_RELAXED);
}

void histogram_record(struct histogram *h, uint64_t ns)
{
	add(&h->counts[bucket_of(ns)], 1);
	add(&h->n, 1);
	if (ns > h->max)
		__atomic_store_n(&h->max, ns, __ATOMIC_RELAXED);
}

void histogram_copy(struct histogram *to, const struct histogram *from)
{
	to->n = 0;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		to->counts[i] =
			__atomic_load_n(&from->counts[i], __ATOMIC_RELAXED);
		to->n += to->counts[i];
	}
	to->max = __atomic_load_n(&from->max, __ATOMIC_RELAXED);
}

void histogram_subtract(struct histogram *now, const struct histogram *before)
{
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		now->counts[i] -= before->counts[i];
	now->n -= before->n;
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
	uint64_t seen = 0, wanted;

	if (!h->n)
		return 0;
	wanted = (uint64_t)(q * (double)h->n);
	if (wanted < 1)
		wanted = 1;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->counts[i];
		if (seen >= wanted)
			return min_u64(histogram_bucket_limit(i), h->max);
	}
	return h->max;
}
