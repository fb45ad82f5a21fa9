/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* Libraries that are loaded only when somebody asks for what they do. */

#include <stddef.h>

struct dynlib_symbol {
	const char *name;
	void *slot; /* a pointer to such a function, to be filled */
};

/*
 * Loads the first of `files` (ends with NULL) that is there, and fills all
 * slots. It stays loaded. NULL, or why not, of dlerror(); no logging.
 */
const char *dynlib_load(const char *const *files,
			const struct dynlib_symbol *symbols, size_t n_symbols);
