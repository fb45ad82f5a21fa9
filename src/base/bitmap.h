/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Bitmaps of atomic 64-bit words. Single bits may be set and cleared by any
 * thread; each operation is one atomic access with acquire-release order.
 * Runs are half-open: [first, end).
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmap {
	_Atomic uint64_t *words;
	uint64_t n_bits;
};

/* All bits clear. 0 or -ENOMEM. Memory is not touched before bits are set. */
int bitmap_init(struct bitmap *bitmap, uint64_t n_bits);
void bitmap_deinit(struct bitmap *bitmap);

static inline bool bitmap_test(const struct bitmap *bitmap, uint64_t bit)
{
	return atomic_load_explicit(&bitmap->words[bit / 64],
				    memory_order_acquire) >>
		       (bit % 64) &
	       1;
}

/* Both return whether the bit was set before. */
static inline bool bitmap_test_and_set(struct bitmap *bitmap, uint64_t bit)
{
	uint64_t mask = (uint64_t)1 << (bit % 64);

	return atomic_fetch_or_explicit(&bitmap->words[bit / 64], mask,
					memory_order_acq_rel) &
	       mask;
}

static inline bool bitmap_test_and_clear(struct bitmap *bitmap, uint64_t bit)
{
	uint64_t mask = (uint64_t)1 << (bit % 64);

	return atomic_fetch_and_explicit(&bitmap->words[bit / 64], ~mask,
					 memory_order_acq_rel) &
	       mask;
}

void bitmap_set_range(struct bitmap *bitmap, uint64_t first, uint64_t end);
void bitmap_clear_range(struct bitmap *bitmap, uint64_t first, uint64_t end);

/* The first set (clear) bit in [from, end), or `end`. */
uint64_t bitmap_find_set(const struct bitmap *bitmap, uint64_t from,
			 uint64_t end);
uint64_t bitmap_find_clear(const struct bitmap *bitmap, uint64_t from,
			   uint64_t end);

/* How many bits are set in [first, end). */
uint64_t bitmap_count(const struct bitmap *bitmap, uint64_t first,
		      uint64_t end);
