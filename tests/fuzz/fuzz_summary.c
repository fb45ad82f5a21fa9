/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <string.h>

#include "flow/image_summary.h"

/* What a confined reader tells of an image, should it have been taken over. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct image *image = calloc(1, sizeof(*image));

	fuzz_require(image);
	image->dir_fd = -1;
	if (!image_summary_parse(data, len, image)) {
		const struct image_machine *machine = &image->machine;

		for (size_t i = 0; i < image->n_regions; i++)
			fuzz_require(
				!strchr(image->regions[i].pages_file, '/'));
		for (size_t i = 0; i < machine->n_blocks; i++)
			fuzz_require(machine->blocks[i].idstr &&
				     machine->blocks[i].region <
					     (int)image->n_regions);
	}
	image_close(image);
	return 0;
}
