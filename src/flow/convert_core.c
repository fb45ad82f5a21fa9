/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/convert_formats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/imagewalk.h"
#include "flow/output.h"
#include "snapuffd/image-format.h"

/* memory.core once more, checked on the way, in order. */
struct core {
	struct output *output;
	bool streams;  /* holes are written, too */
	uint64_t base; /* where the region at hand begins */
};

static int core_data(void *opaque, const struct imagewalk_pages *pages)
{
	struct core *to = opaque;

	if (to->streams)
		return output_append(to->output, 0, pages->data,
				     pages->n * PAGE_SIZE);
	return output_put_pages(to->output, to->base + pages->first * PAGE_SIZE,
				pages);
}

static int core_zeros(void *opaque, const struct imagewalk_pages *pages)
{
	static const uint8_t zeros[64 * KIB];
	struct core *to = opaque;
	uint64_t len = pages->n * PAGE_SIZE;
	int r = 0;

	if (!to->streams)
		return 0;
	for (uint64_t done = 0; !r && done < len; done += sizeof(zeros))
		r = output_append(to->output, 0, zeros,
				  min_u64(len - done, sizeof(zeros)));
	return r;
}

static int put_bytes(struct core *to, uint64_t at, const void *data, size_t len)
{
	return to->streams ? output_append(to->output, at, data, len)
			   : output_write_at(to->output, at, data, len);
}

static int compare_places(const void *a, const void *b)
{
	const struct image_region *x = *(const struct image_region *const *)a;
	const struct image_region *y = *(const struct image_region *const *)b;

	return x->pages_offset < y->pages_offset
		       ? -1
		       : x->pages_offset > y->pages_offset;
}

/* Those that are in memory.core have no gap between them. */
static int put_regions(struct core *to, const struct image *image)
{
	_cleanup_free_ const struct image_region **sorted =
		calloc(image->n_regions + 1, sizeof(*sorted));
	struct imagewalk walk = { core_data, core_zeros, to };
	int r = 0;

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < image->n_regions; i++)
		sorted[i] = &image->regions[i];
	qsort(sorted, image->n_regions, sizeof(*sorted), compare_places);
	for (size_t i = 0; !r && i < image->n_regions; i++) {
		to->base = sorted[i]->pages_offset;
		if (to->base)
			r = imagewalk_region(image, sorted[i], &walk);
	}
	return r;
}

int convert_core(const struct image *image, bool streams, struct output *output)
{
	_cleanup_(image_frame_deinit) struct image_frame frame = {};
	_cleanup_close_ int fd = image_open_core(image, &frame);
	struct core to = { .output = output, .streams = streams };
	int r;

	if (fd < 0)
		return fd == -ENOMEM ? fd : RESULT_FAILED;
	r = put_bytes(&to, 0, frame.head, IMAGE_PAGE_SIZE);
	if (!r)
		r = put_regions(&to, image);
	if (!r)
		r = put_bytes(&to, image->frame.tail_offset, frame.tail,
			      frame.tail_len);
	return r;
}
