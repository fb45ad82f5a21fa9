/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/page.h"

#include <stdbool.h>
#include <string.h>

#include "base/util.h"

static bool is_zero(const void *pages, uint64_t number)
{
	/* Most pages with data differ in the first word. */
	const uint8_t *page = (const uint8_t *)pages + number * PAGE_SIZE;
	const uint64_t *words = (const uint64_t *)page;

	return !words[0] && !memcmp(page, page + 8, PAGE_SIZE - 8);
}

uint64_t page_find_data(const void *pages, uint64_t from, uint64_t n)
{
	while (from < n && is_zero(pages, from))
		from++;
	return from;
}

uint64_t page_find_zero(const void *pages, uint64_t from, uint64_t n)
{
	while (from < n && !is_zero(pages, from))
		from++;
	return from;
}
