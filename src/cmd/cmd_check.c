/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/result.h"
#include "base/text.h"
#include "cmd/dump_parse.h"
#include "flow/check.h"

enum {
	OPT_PID = OPT_FIRST,
	OPT_QMP,
	OPT_AS,
	OPT_DOMAIN,
	OPT_CONNECT,
};

static const struct option long_options[] = {
	{ "pid", required_argument, NULL, OPT_PID },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "as", required_argument, NULL, OPT_AS },
	{ "domain", required_argument, NULL, OPT_DOMAIN },
	{ "connect", required_argument, NULL, OPT_CONNECT },
	COMMON_LONG_OPTIONS,
	{},
};

static const char *const state_names[] = {
	[PROBE_YES] = "yes",
	[PROBE_NO] = "no",
	[PROBE_REQUIRED] = "MISSING",
};

static const char *backing_of(const struct ram *ram, size_t block, char **file)
{
	for (size_t i = 0; i < ram->n_regions; i++) {
		const struct ram_region *region = &ram->regions[i];

		if (region->block != block)
			continue;
		*file = region->file;
		return region->backing == IMAGE_BACKING_ANON ? "anonymous"
		       : region->backing == IMAGE_BACKING_SHARED
			       ? "shared"
			       : "private file";
	}
	return "not migrated";
}

static void print_vm(const struct check_report *report)
{
	const struct ram *ram = &report->ram;
	char size[32];

	printf("\ntarget\n  program    %s\n  QEMU       %s\n  machine    %s\n  state      %s\n",
	       text_make_printable(report->program) ?: "?",
	       text_make_printable(report->qemu_version),
	       text_make_printable(report->machine) ?: "?", report->vm.state);
	printf("  RAM blocks\n");
	for (size_t i = 0; i < ram->blocks.n_blocks; i++) {
		const struct ram_block *block = &ram->blocks.blocks[i];
		char *file = NULL;
		const char *backing = backing_of(ram, i, &file);

		printf("    %-32s %10s, %s%s%s, %" PRIu64 " KiB pages\n",
		       text_make_printable(block->name),
		       format_size(size, block->used_length), backing,
		       file ? " " : "", text_make_printable(file) ?: "",
		       block->page_size / 1024);
	}
	for (size_t i = 0; i < report->obstacles.n_items; i++)
		printf("  obstacle   %s\n",
		       text_make_printable(report->obstacles.items[i]));
}

static void print_process(const struct check_report *report)
{
	char capture[32], copy[32];

	printf("\ntarget\n  program    %s\n  threads    %u\n  mappings   %zu\n",
	       text_make_printable(report->program) ?: "?", report->n_threads,
	       report->n_mappings);
	printf("  memory     %s at most to be captured while it runs on,\n"
	       "             %s to be copied while it stands\n",
	       format_size(capture, report->capture_bytes),
	       format_size(copy, report->copy_bytes));
	for (size_t i = 0; i < report->remarks.n_items; i++)
		printf("  remark     %s\n",
		       text_make_printable(report->remarks.items[i]));
	for (size_t i = 0; i < report->obstacles.n_items; i++)
		printf("  obstacle   %s\n",
		       text_make_printable(report->obstacles.items[i]));
}

static json_t *strings_to_json(const struct vm_strings *strings)
{
	json_t *list = json_array();

	for (size_t i = 0; i < strings->n_items; i++)
		json_array_append_new(list, json_string(strings->items[i]));
	return list;
}

static void add_process(json_t *object, const struct check_report *report)
{
	json_object_set_new(object, "kind", json_string("process"));
	json_object_set_new(object, "program",
			    report->program ? json_string(report->program)
					    : json_null());
	json_object_set_new(object, "n_threads",
			    json_integer(report->n_threads));
	json_object_set_new(object, "n_mappings",
			    json_integer((json_int_t)report->n_mappings));
	json_object_set_new(object, "capture_bytes",
			    json_integer((json_int_t)report->capture_bytes));
	json_object_set_new(object, "copy_bytes",
			    json_integer((json_int_t)report->copy_bytes));
	json_object_set_new(object, "remarks",
			    strings_to_json(&report->remarks));
}

static void print_as_text(const struct check_report *report, int result)
{
	printf("kernel\n");
	for (size_t i = 0; i < report->n_kernel; i++)
		printf("  %-42s %-8s %s\n", report->kernel[i].name,
		       state_names[report->kernel[i].state],
		       report->kernel[i].use);
	printf("\ncapabilities\n");
	for (size_t i = 0; i < CHECK_CAPABILITIES; i++) {
		const struct check_capability *cap = &report->capabilities[i];

		printf("  %-42s %-8s %s\n", cap->name, cap->have ? "yes" : "no",
		       cap->use);
	}
	if (report->kind == IMAGE_KIND_QEMU)
		print_vm(report);
	if (report->kind == IMAGE_KIND_PROCESS)
		print_process(report);
	if (!result)
		printf("\n%s can be dumped\n",
		       report->kind ? "this target" : "targets on this host");
}

static json_t *blocks_to_json(const struct check_report *report)
{
	json_t *list = json_array();

	for (size_t i = 0; i < report->ram.blocks.n_blocks; i++) {
		const struct ram_block *block = &report->ram.blocks.blocks[i];
		char *file = NULL;
		const char *backing = backing_of(&report->ram, i, &file);

		json_array_append_new(
			list,
			json_pack("{s:s, s:I, s:I, s:I, s:s, s:s*}", "name",
				  block->name, "used_length",
				  (json_int_t)block->used_length, "page_size",
				  (json_int_t)block->page_size, "address",
				  (json_int_t)block->host, "backing", backing,
				  "file", file));
	}
	return list;
}

static json_t *report_to_json(const struct check_report *report, int result)
{
	json_t *object = json_object(), *kernel = json_object();
	json_t *caps = json_object();

	for (size_t i = 0; i < report->n_kernel; i++)
		json_object_set_new(
			kernel, report->kernel[i].name,
			json_boolean(report->kernel[i].state == PROBE_YES));
	for (size_t i = 0; i < CHECK_CAPABILITIES; i++)
		json_object_set_new(caps, report->capabilities[i].name,
				    json_boolean(report->capabilities[i].have));
	json_object_set_new(object, "ok", json_boolean(!result));
	json_object_set_new(object, "kernel", kernel);
	json_object_set_new(object, "capabilities", caps);
	json_object_set_new(object, "obstacles",
			    strings_to_json(&report->obstacles));
	if (report->kind == IMAGE_KIND_PROCESS)
		add_process(object, report);
	if (report->kind != IMAGE_KIND_QEMU)
		return object;
	json_object_set_new(object, "kind", json_string("qemu"));
	json_object_set_new(object, "qemu_version",
			    json_string(report->qemu_version));
	json_object_set_new(object, "machine",
			    report->machine ? json_string(report->machine)
					    : json_null());
	json_object_set_new(object, "state", json_string(report->vm.state));
	json_object_set_new(object, "ram_blocks", blocks_to_json(report));
	return object;
}

static void log_obstacle(const struct check_report *report)
{
	if (report->obstacles.n_items)
		log_error("pid %d: %s", report->pid,
			  report->obstacles.items[0]);
	else if (!report->host_ok)
		log_error(
			"this host cannot be dumped on: what is marked MISSING is needed");
}

static int run(int argc, char **argv)
{
	struct check_report report;
	struct common_options common = {};
	struct check_options options = {};
	int option, printed = 0, r = 0;

	while (!r && (option = getopt_long(argc, argv, ":", long_options,
					   NULL)) != -1) {
		switch (option) {
		case OPT_PID:
			r = parse_pid(optarg, &options.pid);
			break;
		case OPT_QMP:
			options.qmp = optarg;
			break;
		case OPT_AS:
			r = dump_parse_kind(optarg, &options.kind);
			break;
		case OPT_DOMAIN:
			options.domain = optarg;
			break;
		case OPT_CONNECT:
			options.connect = optarg;
			break;
		default:
			r = common_option(&common, option, &cmd_check, argv);
		}
	}
	if (!r)
		r = require_arguments(&cmd_check, argc, 0, "");
	if (!r)
		r = check_domain_options(
			&cmd_check, options.domain, options.connect,
			options.pid || options.qmp || options.kind);
	if (r)
		return r;

	r = flow_check(&options, &report);
	if (common.json)
		printed = print_json(report_to_json(&report, r));
	else if (!common.quiet)
		print_as_text(&report, r);
	fflush(stdout);
	if (r == RESULT_UNSUPPORTED)
		log_obstacle(&report);
	check_report_deinit(&report);
	return r ? r : printed;
}

const struct verb cmd_check = {
	.name = "check",
	.summary = "tell whether this host, or a process, can be dumped",
	.usage =
		"usage: snapuffd check [--pid N | --domain NAME] [options]\n"
		"\n"
		"Asks the kernel for what a dump needs and, with --pid, looks at the target:\n"
		"is it a QEMU, which, where is its monitor, how is its RAM backed; or how much\n"
		"memory a process has; and what would stop a dump. Changes nothing.\n"
		"Exit code 3: no dump is possible.\n"
		"\n"
		"  --pid N          a process to look at\n"
		"  --as KIND        qemu or process, instead of telling by the program\n"
		"  --qmp PATH       its QMP socket, instead of searching for it\n"
		"  --domain NAME    a domain of libvirt, by name or UUID\n"
		"  --connect URI    its libvirt (default: qemu:///system)\n" COMMON_USAGE
		"\n"
		"example: snapuffd check --pid $(pidof qemu-system-x86_64)\n"
		"         snapuffd check --domain vm1\n",
	.run = run,
};
