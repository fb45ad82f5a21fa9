/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/dynlib.h"

#include <dlfcn.h>
#include <string.h>

const char *dynlib_load(const char *const *files,
			const struct dynlib_symbol *symbols, size_t n_symbols)
{
	void *handle = NULL, *symbol;

	while (!handle && *files)
		handle = dlopen(*files++, RTLD_NOW);
	if (!handle)
		return dlerror();
	for (size_t i = 0; i < n_symbols; i++) {
		symbol = dlsym(handle, symbols[i].name);
		if (!symbol)
			return dlerror();
		memcpy(symbols[i].slot, &symbol, sizeof(symbol));
	}
	return NULL;
}
