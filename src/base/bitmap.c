/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/bitmap.h"

#include <errno.h>
#include <stdlib.h>

int bitmap_init(struct bitmap *bitmap, uint64_t n_bits)
{
	bitmap->words = calloc(n_bits / 64 + 1, sizeof(*bitmap->words));
	bitmap->n_bits = n_bits;
	return bitmap->words ? 0 : -ENOMEM;
}

void bitmap_deinit(struct bitmap *bitmap)
{
	free(bitmap->words);
	*bitmap = (struct bitmap){};
}

/* The bits of word `w` that lie in [first, end). */
static uint64_t word_mask(uint64_t w, uint64_t first, uint64_t end)
{
	uint64_t mask = ~(uint64_t)0;

	if (first > w * 64)
		mask &= ~(uint64_t)0 << (first - w * 64);
	if (end < (w + 1) * 64)
		mask &= ~(~(uint64_t)0 << (end - w * 64));
	return mask;
}

void bitmap_set_range(struct bitmap *bitmap, uint64_t first, uint64_t end)
{
	if (first >= end)
		return;
	for (uint64_t w = first / 64; w <= (end - 1) / 64; w++)
		atomic_fetch_or_explicit(&bitmap->words[w],
					 word_mask(w, first, end),
					 memory_order_acq_rel);
}

void bitmap_clear_range(struct bitmap *bitmap, uint64_t first, uint64_t end)
{
	if (first >= end)
		return;
	for (uint64_t w = first / 64; w <= (end - 1) / 64; w++)
		atomic_fetch_and_explicit(&bitmap->words[w],
					  ~word_mask(w, first, end),
					  memory_order_acq_rel);
}

static uint64_t find(const struct bitmap *bitmap, uint64_t from, uint64_t end,
		     uint64_t invert)
{
	if (from >= end)
		return end;
	for (uint64_t w = from / 64; w <= (end - 1) / 64; w++) {
		uint64_t word = atomic_load_explicit(&bitmap->words[w],
						     memory_order_acquire);

		word = (word ^ invert) & word_mask(w, from, end);
		if (word)
			return w * 64 + (uint64_t)__builtin_ctzll(word);
	}
	return end;
}

uint64_t bitmap_find_set(const struct bitmap *bitmap, uint64_t from,
			 uint64_t end)
{
	return find(bitmap, from, end, 0);
}

uint64_t bitmap_find_clear(const struct bitmap *bitmap, uint64_t from,
			   uint64_t end)
{
	return find(bitmap, from, end, ~(uint64_t)0);
}

uint64_t bitmap_count(const struct bitmap *bitmap, uint64_t first, uint64_t end)
{
	uint64_t n = 0;

	if (first >= end)
		return 0;
	for (uint64_t w = first / 64; w <= (end - 1) / 64; w++)
		n += (uint64_t)__builtin_popcountll(
			atomic_load_explicit(&bitmap->words[w],
					     memory_order_acquire) &
			word_mask(w, first, end));
	return n;
}
