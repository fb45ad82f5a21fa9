/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "base/util.h"
#include "cmd/inspect_process.h"
#include "flow/confined.h"
#include "image/reader.h"

static const struct option long_options[] = {
	COMMON_LONG_OPTIONS,
	{},
};

static uint64_t data_pages(const struct image_region *region)
{
	uint64_t n = 0;

	for (size_t i = 0; i < region->n_runs; i++)
		n += region->runs[i].n;
	return n;
}

static const char *backing_name(enum image_backing backing)
{
	switch (backing) {
	case IMAGE_BACKING_ANON:
		return "anonymous";
	case IMAGE_BACKING_SHARED:
		return "shared";
	case IMAGE_BACKING_PRIVATE_FILE:
		return "private file";
	}
	return "?";
}

/* UTC, to the millisecond; `text` has room for 64 bytes. */
static const char *format_time(char *text, uint64_t unix_ns)
{
	time_t seconds = (time_t)(unix_ns / 1000000000);
	struct tm tm;
	char date[32];

	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(text, 64, "%s.%03u UTC", date,
		 (unsigned)(unix_ns / 1000000 % 1000));
	return text;
}

static json_t *regions_to_json(const struct image *image)
{
	json_t *list = json_array();

	for (size_t i = 0; i < image->n_regions; i++) {
		const struct image_region *region = &image->regions[i];

		json_array_append_new(
			list,
			json_pack(
				"{s:s, s:I, s:I, s:I, s:s, s:s*, s:s, s:I, s:I}",
				"name", region->name, "address",
				(json_int_t)region->address, "length",
				(json_int_t)region->length, "page_size",
				(json_int_t)region->page_size, "backing",
				backing_name(region->backing), "file",
				region->file, "pages_file", region->pages_file,
				"pages_offset",
				(json_int_t)region->pages_offset, "data_pages",
				(json_int_t)data_pages(region)));
	}
	return list;
}

/* "size" is null for what could not be looked at, and block devices; "overlay"
 * where the source still writes to the file itself. */
static json_t *disks_to_json(const struct image_machine *machine)
{
	json_t *list = json_array();

	for (size_t i = 0; i < machine->n_disks; i++) {
		const struct image_disk *disk = &machine->disks[i];

		json_array_append_new(
			list,
			json_pack("{s:o, s:s?, s:s?, s:b, s:o, s:o}", "file",
				  text_to_json(disk->file), "format",
				  disk->format, "device", disk->device,
				  "read_only", disk->read_only, "size",
				  disk->has_stat
					  ? json_integer((json_int_t)disk->size)
					  : json_null(),
				  "overlay", text_to_json(disk->overlay)));
	}
	return list;
}

static json_t *histogram_to_json(const struct histogram *h)
{
	json_t *list = json_array();

	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (h->counts[i])
			json_array_append_new(
				list,
				json_pack("[f, I]",
					  (double)histogram_bucket_limit(i) /
						  1e3,
					  (json_int_t)h->counts[i]));
	return list;
}

static int print_as_json(const struct image *image)
{
	const struct image_inventory *inventory = &image->inventory;
	const struct image_machine *machine = &image->machine;
	json_t *object = stats_to_json(&image->stats);
	char frozen[64];

	json_object_set_new(object, "kind",
			    json_string(inventory->kind == IMAGE_KIND_QEMU
						? "qemu"
						: "process"));
	json_object_set_new(object, "complete",
			    json_boolean(inventory->complete));
	json_object_set_new(object, "version",
			    json_integer(inventory->version));
	json_object_set_new(
		object, "host",
		json_string(inventory->host ? inventory->host : ""));
	json_object_set_new(object, "pid", json_integer(inventory->pid));
	json_object_set_new(
		object, "frozen",
		json_string(format_time(frozen, inventory->frozen_unix_ns)));
	json_object_set_new(
		object, "unsafe",
		texts_to_json(inventory->unsafe, inventory->n_unsafe));
	json_object_set_new(object, "regions", regions_to_json(image));
	json_object_set_new(object, "fault_histogram",
			    histogram_to_json(&image->stats.faults));
	if (inventory->kind == IMAGE_KIND_QEMU) {
		json_object_set_new(object, "qemu_version",
				    json_string(machine->qemu_version));
		json_object_set_new(object, "machine",
				    json_string(machine->machine_class));
		json_object_set_new(object, "was_running",
				    json_boolean(machine->running));
		json_object_set_new(object, "disks", disks_to_json(machine));
		json_object_set_new(object, "domain_xml",
				    json_boolean(machine->domain_xml));
	} else {
		process_to_json(object, &image->process);
	}
	return print_json(object);
}

static void print_disks(const struct image_machine *machine)
{
	char size[32];

	if (machine->n_disks)
		printf("disks\n");
	for (size_t i = 0; i < machine->n_disks; i++) {
		const struct image_disk *disk = &machine->disks[i];

		printf("  %-32s %10s, %s%s, %s\n",
		       text_make_printable(disk->device) ?: "?",
		       disk->has_stat ? format_size(size, disk->size) : "-",
		       text_make_printable(disk->format) ?: "?",
		       disk->read_only ? ", read-only" : "",
		       text_make_printable(disk->file));
		if (disk->overlay)
			printf("  %-32s %10s  goes on in %s\n", "", "",
			       text_make_printable(disk->overlay));
	}
}

/* One line a factor of two, so that the shape shows. */
static void print_histogram(const struct histogram *h)
{
	uint64_t limit = 1024, n = 0, most = 0;

	for (int draw = 0; draw < 2; draw++, limit = 1024, n = 0) {
		for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
			n += h->counts[i];
			if (i + 1 < HISTOGRAM_BUCKETS &&
			    histogram_bucket_limit(i + 1) < limit)
				continue;
			if (draw && n)
				printf("  < %9.0f us %9" PRIu64 " %.*s\n",
				       (double)limit / 1e3, n,
				       (int)(n * 40 / most),
				       "########################################");
			most = draw ? most : max_u64(most, n);
			limit *= 2;
			n = 0;
		}
	}
}

static void print_as_text(const struct image *image)
{
	const struct image_inventory *inventory = &image->inventory;
	char text[64], size[32], data[32];

	printf("image      %s, version %u\n", image->path, inventory->version);
	printf("taken      %s of pid %d on %s\n",
	       format_time(text, inventory->frozen_unix_ns), inventory->pid,
	       text_make_printable(inventory->host) ?: "?");
	for (size_t i = 0; i < inventory->n_unsafe; i++)
		printf("UNSAFE     %s\n",
		       text_make_printable(inventory->unsafe[i]));
	if (inventory->kind == IMAGE_KIND_QEMU)
		printf("machine    %s, QEMU %s, was %s\n",
		       text_make_printable(image->machine.machine_class),
		       text_make_printable(image->machine.qemu_version),
		       image->machine.running ? "running" : "paused");
	else
		process_print(&image->process);
	if (image->machine.domain_xml)
		printf("domain     its XML of libvirt, %zu bytes\n",
		       strlen(image->machine.domain_xml));
	stats_print(stdout, &image->stats);
	if (image->stats.faults.n)
		print_histogram(&image->stats.faults);

	/* Those of a process are parts of its mappings, and many. */
	if (inventory->kind == IMAGE_KIND_PROCESS)
		return;
	printf("regions\n");
	for (size_t i = 0; i < image->n_regions; i++) {
		const struct image_region *region = &image->regions[i];

		printf("  %-32s %10s, data %10s, %s%s\n",
		       text_make_printable(region->name),
		       format_size(size, region->length),
		       format_size(data, data_pages(region) * PAGE_SIZE),
		       backing_name(region->backing),
		       region->page_size > PAGE_SIZE ? ", 2 MiB pages" : "");
	}
	print_disks(&image->machine);
}

static int run(int argc, char **argv)
{
	_cleanup_image_ struct image *image = NULL;
	struct common_options common = {};
	int option, r = 0;

	while (!r && (option = getopt_long(argc, argv, ":", long_options,
					   NULL)) != -1)
		r = common_option(&common, option, &cmd_inspect, argv);
	if (!r)
		r = require_arguments(&cmd_inspect, argc, 1,
				      "the image directory is missing");
	if (!r)
		r = confine_to_image(argv[optind]);
	if (!r)
		r = image_open(&image, argv[optind]);
	if (r)
		return r;
	if (common.json)
		return print_as_json(image);
	if (!common.quiet)
		print_as_text(image);
	return 0;
}

const struct verb cmd_inspect = {
	.name = "inspect",
	.summary = "show what an image holds and how the dump went",
	.usage =
		"usage: snapuffd inspect DIR [options]\n"
		"\n"
		"Shows the machine, the regions, the disks, or the process; the figures of\n"
		"the dump and how long each write fault of the target took to be served.\n"
		"Checks all records, not pages.\n"
		"\n" COMMON_USAGE "\n"
		"example: snapuffd inspect /var/backups/vm1 --json\n",
	.run = run,
};
