/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/convert_formats.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/imagewalk.h"
#include "flow/output.h"
#include "qemu/mapped_ram.h"

/* The first release that loads it. */
#define QEMU_MAJOR 9

struct mapped {
	struct mapped_ram *ram;
	struct output *output;
};

static int mapped_data(void *opaque, const struct imagewalk_pages *pages)
{
	struct mapped *to = opaque;
	uint64_t at;
	int r = mapped_ram_pages(to->ram, pages->block,
				 pages->first * PAGE_SIZE, pages->n, &at);

	return r ? r : output_put_pages(to->output, at, pages);
}

/* Present, but a hole. */
static int mapped_zeros(void *opaque, const struct imagewalk_pages *pages)
{
	struct mapped *to = opaque;
	uint64_t at;

	return mapped_ram_pages(to->ram, pages->block, pages->first * PAGE_SIZE,
				pages->n, &at);
}

/* Such an image may be meant for a newer QEMU, which has its machine too. */
static void note_version(const struct image *image)
{
	const char *version = image->machine.qemu_version;

	if (version && strtol(version, NULL, 10) < QEMU_MAJOR)
		log_info(
			"%s: was dumped from QEMU %s; mapped-ram is loaded by %d.0 or newer",
			image->path, version, QEMU_MAJOR);
}

int convert_mapped(const struct image *image, struct output *output)
{
	_cleanup_(ram_blocks_deinit) struct ram_blocks blocks = {};
	_cleanup_mapped_ram_ struct mapped_ram *ram = NULL;
	_cleanup_free_ char *devices = NULL;
	struct savevm_sink sink = { output_write_at, output };
	struct mapped to = { .output = output };
	struct imagewalk walk = { mapped_data, mapped_zeros, &to };
	size_t len;
	int r;

	note_version(image);
	r = image_read_device_state(image, &devices, &len);
	if (!r)
		r = imagewalk_list_blocks(image, &blocks);
	if (!r)
		r = mapped_ram_begin(&sink, image->machine.machine_class,
				     &blocks, &ram);
	if (r)
		return r;
	to.ram = ram;
	r = imagewalk_blocks(image, &walk);
	if (!r)
		r = mapped_ram_end(ram, devices, len);
	return r;
}
