/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <string.h>

#include "qemu/optlist.h"

/* An option's value, as text or JSON; printed, it reads as the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	struct optlist list, again;
	char *text = fuzz_string(part), *printed;
	int r = optlist_init(&list, text, "type");
	/* A key of JSON may be what no text can say. */
	bool is_json = *text == '{';

	free(text);
	if (!r) {
		optlist_get(&list, "id");
		optlist_is_on(&list, "ro", true);
		optlist_set(&list, "id", "a,b");
		optlist_remove(&list, "file");
		printed = optlist_print(&list);
		fuzz_require(printed);
		if (!is_json && *printed != '{') {
			fuzz_require(!optlist_init(&again, printed, NULL));
			fuzz_require(optlist_has(&again, "id"));
			fuzz_require(!strcmp(optlist_get(&again, "id"), "a,b"));
			optlist_deinit(&again);
		}
		free(printed);
	}
	optlist_deinit(&list);
	return 0;
}
