/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include "image_input.h"

/* stats.img, with its histograms. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	struct image_stats stats;
	struct record record;

	image_input_record(&record, part);
	if (!decode_stats(&record, &stats)) {
		histogram_quantile(&stats.faults, 0.5);
		histogram_quantile(&stats.faults, 0.999);
		histogram_quantile(&stats.queue, 0.99);
	}
	record_deinit(&record);
	return 0;
}
