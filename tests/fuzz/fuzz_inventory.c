/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include "image_input.h"

/*
 * inventory.img. Its seal is set right, or nothing behind it would be reached:
 * whoever makes an image can do so, too.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	struct image_inventory inventory;
	struct image_part *parts;
	struct record record;
	size_t n_parts;

	for (int sealed = 0; sealed < 2; sealed++) {
		image_input_record(&record, part);
		if (sealed)
			image_input_seal(&record);
		if (!decode_inventory(&record, &inventory, &parts, &n_parts))
			for (size_t i = 0; i < n_parts; i++)
				fuzz_require(!strchr(parts[i].name, '/') &&
					     parts[i].name[0] != '.');
		for (size_t i = 0; i < n_parts; i++)
			free(parts[i].name);
		free(parts);
		image_inventory_deinit(&inventory);
		record_deinit(&record);
	}
	return 0;
}
