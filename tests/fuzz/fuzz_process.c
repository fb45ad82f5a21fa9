/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include "elfcore/elfcore.h"
#include "image_input.h"

static int decode(struct fuzz_input *input, struct image_process *process)
{
	struct record record;
	struct image_frame_sums sums;
	int r;

	image_input_record(&record, fuzz_next_part(input));
	r = decode_process(&record, process, &sums);
	record_deinit(&record);
	if (r)
		return r;
	image_input_record(&record, fuzz_next_part(input));
	r = decode_mappings(&record, process);
	record_deinit(&record);
	if (r)
		return r;
	image_input_record(&record, fuzz_next_part(input));
	r = decode_threads(&record, process);
	record_deinit(&record);
	return r;
}

/* process.img, mappings.img and threads.img; a core can be made of what they
 * say, by the code that makes one of a live process. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_input input = FUZZ_INPUT(data, len);
	struct image_process process = {};
	struct image_frame frame = {};
	struct image_region region = {
		.length = 4096,
		.page_size = 4096,
		.pages_offset = 4096,
	};

	if (!decode(&input, &process)) {
		if (process.n_mappings)
			region.address = process.mappings[0].start;
		elfcore_build(&process, &region, 1, 8192, &frame);
	}
	image_frame_deinit(&frame);
	image_process_deinit(&process);
	return 0;
}
