/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include "image_input.h"
#include "snapuffd/image-format.h"

static void check(const struct image_region *region)
{
	uint64_t n_pages = region->length / IMAGE_PAGE_SIZE, next = 0;

	fuzz_require(!strchr(region->pages_file, '/'));
	for (size_t i = 0; i < region->n_runs; i++) {
		const struct image_run *run = &region->runs[i];

		fuzz_require(run->n && run->n <= IMAGE_RUN_MAX_PAGES);
		fuzz_require(run->first >= next && run->first < n_pages &&
			     run->n <= n_pages - run->first);
		next = run->first + run->n;
	}
}

/* regions.img and pagemap.img, the index of an image's pages. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_input input = FUZZ_INPUT(data, len);
	struct record regions, pagemap;
	struct image_region *list;
	uint64_t core_end;
	size_t n;

	image_input_record(&regions, fuzz_next_part(&input));
	image_input_record(&pagemap, fuzz_next_part(&input));
	if (!decode_regions(&regions, &pagemap, &list, &n, &core_end))
		for (size_t i = 0; i < n; i++)
			check(&list[i]);
	for (size_t i = 0; i < n; i++)
		image_region_deinit(&list[i]);
	free(list);
	record_deinit(&regions);
	record_deinit(&pagemap);
	return 0;
}
