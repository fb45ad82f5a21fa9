/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/unsafe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/result.h"

/* More are no longer a line that one reads. */
#define NAMED_MAX 4

int unsafe_refuse(pid_t pid, const struct vm_strings *reasons,
		  const char *way_out)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_fclose_ FILE *to = NULL;
	size_t len, i;

	if (!reasons->n_items)
		return 0;
	to = open_memstream(&text, &len);
	if (!to)
		return -ENOMEM;
	for (i = 0; i < reasons->n_items && i < NAMED_MAX; i++)
		fprintf(to, "%s%s", i ? "; " : "", reasons->items[i]);
	if (i < reasons->n_items)
		fprintf(to, "; and %zu more (see snapuffd check --pid)",
			reasons->n_items - i);
	if (fflush(to))
		return -ENOMEM;
	log_error("pid %d: %s: %s", pid, text, way_out);
	return RESULT_UNSUPPORTED;
}

int unsafe_accept(pid_t pid, const struct vm_strings *reasons,
		  struct vm_strings *unsafe)
{
	int r = 0;

	for (size_t i = 0; !r && i < reasons->n_items; i++) {
		if (i < NAMED_MAX)
			log_warning(
				"pid %d: UNSAFE, the snapshot may be torn: %s",
				pid, reasons->items[i]);
		r = vm_strings_add(unsafe, "%s", reasons->items[i]);
	}
	if (reasons->n_items > NAMED_MAX)
		log_warning("pid %d: and %zu more (see snapuffd inspect)", pid,
			    reasons->n_items - NAMED_MAX);
	return r;
}
