/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/convert_formats.h"

#include "base/util.h"
#include "flow/convert.h"
#include "flow/imagewalk.h"
#include "flow/output.h"
#include "qemu/stream.h"

static int stream_data(void *opaque, const struct imagewalk_pages *pages)
{
	return stream_pages(opaque, pages->block, pages->first * PAGE_SIZE,
			    pages->data, pages->n);
}

static int stream_zeros(void *opaque, const struct imagewalk_pages *pages)
{
	return stream_zero_pages(opaque, pages->block, pages->first * PAGE_SIZE,
				 pages->n);
}

int convert_stream(const struct image *image, bool with_ram,
		   const struct savevm_sink *sink)
{
	_cleanup_(ram_blocks_deinit) struct ram_blocks blocks = {};
	_cleanup_stream_ struct stream *stream = NULL;
	_cleanup_free_ char *devices = NULL;
	struct imagewalk walk = {
		.data = stream_data,
		.zeros = stream_zeros,
		.without_ram = !with_ram,
	};
	size_t len;
	int r;

	r = image_read_device_state(image, &devices, &len);
	if (!r)
		r = imagewalk_list_blocks(image, &blocks);
	if (!r)
		r = stream_begin(sink, image->machine.machine_class, &blocks,
				 &stream);
	if (r)
		return r;
	walk.opaque = stream;
	r = imagewalk_blocks(image, &walk);
	return r ? r : stream_end(stream, devices, len);
}

int convert_qemu(const struct image *image, bool with_ram,
		 struct output *output)
{
	struct savevm_sink sink = { output_append, output };

	return convert_stream(image, with_ram, &sink);
}
