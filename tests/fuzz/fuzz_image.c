/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/util.h"
#include "cmd/cmd.h"
#include "flow/convert_formats.h"
#include "image/reader.h"
#include "image_input.h"
#include "snapuffd/image-format.h"

/*
 * A whole image directory, through everything that reads one: inspect (as text
 * and as JSON), verify, and the conversions. Its parts are, in this order, the
 * files below; checksums are set right, so that they keep nothing out.
 */

static const char pages_name[] = "pc.ram.pages";

/* Of the first region, which a test likes to have, but not all memory. */
#define PAGES_MAX (16 * MIB)

static const char *const names[] = {
	IMAGE_REGIONS, IMAGE_PAGEMAP, IMAGE_STATS,    IMAGE_MACHINE,
	IMAGE_PROCESS, IMAGE_THREADS, IMAGE_MAPPINGS, IMAGE_DEVICE_STATE,
};

static void put_record(struct fuzz_input *input, const char *name,
		       uint32_t magic)
{
	struct fuzz_part part = fuzz_next_part(input);
	struct record record;

	if (!part.len) {
		fuzz_put(name, part);
		return;
	}
	image_input_record(&record, part);
	if (magic == IMAGE_MAGIC_PAGEMAP) {
		image_input_sum_runs(&record, pages_name, 0);
		image_input_sum_runs(&record, IMAGE_CORE, IMAGE_PAGE_SIZE);
	} else if (magic == IMAGE_MAGIC_PROCESS) {
		image_input_sum_frame(&record);
	}
	image_input_put(name, magic, &record);
	record_deinit(&record);
}

/* As long as its region, so that it is not refused at once. */
static void put_pages(struct fuzz_part pages, struct fuzz_part length)
{
	char *text = fuzz_string(length);
	uint64_t len = strtoull(text, NULL, 10);
	char path[128];

	fuzz_put(pages_name, pages);
	snprintf(path, sizeof(path), "%s/%s", fuzz_dir_path(), pages_name);
	if (pages.len && len && len <= PAGES_MAX)
		fuzz_require(!truncate(path, (off_t)len));
	free(text);
}

static void put_image(struct fuzz_input *input)
{
	struct fuzz_part inventory = fuzz_next_part(input);
	struct fuzz_part length = fuzz_next_part(input);
	struct record record;

	put_pages(fuzz_next_part(input), length);
	fuzz_put(IMAGE_CORE, fuzz_next_part(input));
	fuzz_put(IMAGE_DEVICE_STATE, fuzz_next_part(input));
	put_record(input, IMAGE_REGIONS, IMAGE_MAGIC_REGIONS);
	put_record(input, IMAGE_PAGEMAP, IMAGE_MAGIC_PAGEMAP);
	put_record(input, IMAGE_STATS, IMAGE_MAGIC_STATS);
	put_record(input, IMAGE_MACHINE, IMAGE_MAGIC_MACHINE);
	put_record(input, IMAGE_PROCESS, IMAGE_MAGIC_PROCESS);
	put_record(input, IMAGE_MAPPINGS, IMAGE_MAGIC_MAPPINGS);
	put_record(input, IMAGE_THREADS, IMAGE_MAGIC_THREADS);

	image_input_record(&record, inventory);
	image_input_name_parts(&record, names, ARRAY_SIZE(names));
	image_input_put(IMAGE_INVENTORY, IMAGE_MAGIC_INVENTORY, &record);
	record_deinit(&record);
}

static void run(const struct verb *verb, const char *option)
{
	char *argv[] = { (char *)verb->name, (char *)fuzz_dir_path(),
			 (char *)option, NULL };

	/* getopt(3): starts anew. */
	optind = 0;
	verb->run(option ? 3 : 2, argv);
}

static void convert(const struct image *image)
{
	static const enum convert_format formats[] = { CONVERT_CORE,
						       CONVERT_MAPPED_RAM,
						       CONVERT_LIBVIRT };
	struct savevm_sink sink = { fuzz_sink, NULL };
	char out[128];

	if (image->inventory.kind == IMAGE_KIND_QEMU) {
		convert_stream(image, true, &sink);
		convert_stream(image, false, &sink);
	}
	snprintf(out, sizeof(out), "%s/out", fuzz_dir_path());
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		struct output output = OUTPUT_INIT;

		fuzz_require(!output_open(&output, out));
		convert_image(image, formats[i], out, &output);
		output_discard(&output);
	}
}

static void quiet(void)
{
	static bool done;

	if (!done)
		fuzz_require(freopen("/dev/null", "w", stdout));
	done = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_input input = FUZZ_INPUT(data, len);
	struct image *image;

	quiet();
	put_image(&input);
	if (image_open(&image, fuzz_dir_path()))
		return 0;
	image_verify(image);
	convert(image);
	image_close(image);
	run(&cmd_inspect, NULL);
	run(&cmd_inspect, "--json");
	return 0;
}
