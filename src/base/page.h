/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Which of `n` pages that follow one another at `pages`, on a page boundary,
 * hold data: the first one from `from` on that is not all zeros, or that is;
 * `n` when there is none.
 */

#include <stdint.h>

uint64_t page_find_data(const void *pages, uint64_t from, uint64_t n);
uint64_t page_find_zero(const void *pages, uint64_t from, uint64_t n);
