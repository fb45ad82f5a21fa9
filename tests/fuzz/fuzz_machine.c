/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <string.h>

#include "image_input.h"

#define N_REGIONS 3

/* machine.img; what is understood can be written again, and read. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	struct record record, again = {};
	struct image_machine machine;
	int r;

	image_input_record(&record, part);
	r = decode_machine(&record, N_REGIONS, &machine);
	record_deinit(&record);
	if (!r) {
		for (size_t i = 0; i < machine.n_blocks; i++)
			fuzz_require(machine.blocks[i].region < N_REGIONS);
		fuzz_require(!machine.domain_xml ||
			     strlen(machine.domain_xml) <=
				     IMAGE_DOMAIN_XML_MAX);
		fuzz_require(!encode_machine(&again, &machine));
	}
	image_machine_deinit(&machine);
	if (r)
		return 0;
	again.pos = sizeof(uint32_t);
	fuzz_require(!decode_machine(&again, N_REGIONS, &machine));
	image_machine_deinit(&machine);
	record_deinit(&again);
	return 0;
}
