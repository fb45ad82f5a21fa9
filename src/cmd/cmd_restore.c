/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "flow/restore.h"
#include "flow/restore_domain.h"

enum {
	OPT_QEMU = OPT_FIRST,
	OPT_DIR,
	OPT_QMP,
	OPT_EAGER,
	OPT_PRINT,
	OPT_DISKS,
	OPT_CHANGED_DISKS,
	OPT_DOMAIN,
	OPT_CONNECT,
};

static const struct option long_options[] = {
	{ "qemu", required_argument, NULL, OPT_QEMU },
	{ "dir", required_argument, NULL, OPT_DIR },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "eager", no_argument, NULL, OPT_EAGER },
	{ "print", no_argument, NULL, OPT_PRINT },
	{ "disks", required_argument, NULL, OPT_DISKS },
	{ "changed-disks", no_argument, NULL, OPT_CHANGED_DISKS },
	{ "domain", optional_argument, NULL, OPT_DOMAIN },
	{ "connect", required_argument, NULL, OPT_CONNECT },
	COMMON_LONG_OPTIONS,
	{},
};

static int parse_disks(const char *text, bool *as_is)
{
	*as_is = !strcmp(text, "as-is");
	if (*as_is || !strcmp(text, "fresh"))
		return 0;
	log_error("restore: --disks %s: must be fresh or as-is", text);
	return RESULT_USAGE;
}

static int print_report(const struct restore_options *options,
			const struct common_options *common,
			const struct restore_report *report)
{
	const char *state = report->running ? "running" : "paused";

	if (options->print && !common->json) {
		puts(report->command);
		return 0;
	}
	if (common->json) {
		json_t *object =
			json_pack("{s:s, s:b}", "command", report->command,
				  "eager", (int)report->eager);

		if (!options->print)
			json_object_update_new(
				object,
				json_pack("{s:i, s:s, s:f, s:s}", "pid",
					  (int)report->pid, "state", state,
					  "running_ms",
					  (double)report->started_ns / 1e6,
					  "dir", report->dir));
		return print_json(object);
	}
	if (common->quiet)
		return 0;
	printf("pid        %d, %s after %.0f ms%s\n", report->pid, state,
	       (double)report->started_ns / 1e6,
	       report->eager ? " (all RAM read before)" : "");
	printf("directory  %s\n", report->dir);
	return 0;
}

static int print_domain(const struct common_options *common,
			const struct restore_domain_report *report)
{
	const char *state = report->running ? "running" : "paused";
	double ms = (double)report->started_ns / 1e6;

	if (common->json)
		return print_json(
			json_pack("{s:o, s:s, s:b, s:f, s:f, s:o}", "domain",
				  text_to_json(report->name), "state", state,
				  "eager", (int)report->eager, "running_ms", ms,
				  "duration_ms", (double)report->took_ns / 1e6,
				  "dir", text_to_json(report->dir)));
	if (common->quiet)
		return 0;
	printf("domain     %s, %s after %.0f ms%s\n", report->name, state, ms,
	       report->eager ? " (all RAM read before)" : "");
	printf("directory  %s\n", report->dir);
	return 0;
}

/* What libvirt does in our place cannot be chosen. */
static int restore_domain(const struct restore_options *options,
			  const char *name, const char *connect,
			  const struct common_options *common)
{
	struct restore_domain_options domain = {
		.image = options->image,
		.name = name,
		.connect = connect,
		.dir = options->dir,
		.eager = options->eager,
		.changed_disks = options->changed_disks,
	};
	struct restore_domain_report report;
	int r;

	if (options->argv || options->program || options->qmp ||
	    options->print || options->disks_as_is) {
		log_error(
			"restore: --domain goes without --qemu, --qmp, --print, --disks as-is and a command line: libvirt starts QEMU");
		return RESULT_USAGE;
	}
	r = flow_restore_domain(&domain, &report);
	if (!r)
		r = print_domain(common, &report);
	restore_domain_report_deinit(&report);
	return r;
}

static int run(int argc, char **argv)
{
	struct restore_options options = {};
	struct common_options common = {};
	struct restore_report report;
	const char *name = NULL, *connect = NULL;
	bool by_libvirt = false;
	int option, n_own = argc, r = 0;

	/* What follows -- is QEMU's. */
	for (int i = 1; i < argc && n_own == argc; i++)
		if (!strcmp(argv[i], "--"))
			n_own = i;
	if (n_own < argc) {
		options.argv = argv + n_own + 1;
		options.n_args = (size_t)(argc - n_own - 1);
		if (!options.n_args) {
			log_error(
				"restore: QEMU's command line is missing after --");
			return RESULT_USAGE;
		}
	}

	while (!r && (option = getopt_long(n_own, argv, ":", long_options,
					   NULL)) != -1) {
		switch (option) {
		case OPT_QEMU:
			options.program = optarg;
			break;
		case OPT_DIR:
			options.dir = optarg;
			break;
		case OPT_QMP:
			options.qmp = optarg;
			break;
		case OPT_EAGER:
			options.eager = true;
			break;
		case OPT_PRINT:
			options.print = true;
			break;
		case OPT_DISKS:
			r = parse_disks(optarg, &options.disks_as_is);
			break;
		case OPT_CHANGED_DISKS:
			options.changed_disks = true;
			break;
		case OPT_DOMAIN:
			by_libvirt = true;
			name = optarg;
			/* The name is another word, but may be missing. */
			if (!name && optind < n_own && *argv[optind] != '-')
				name = argv[optind++];
			break;
		case OPT_CONNECT:
			connect = optarg;
			break;
		default:
			r = common_option(&common, option, &cmd_restore, argv);
		}
	}
	if (!r)
		r = require_arguments(&cmd_restore, n_own, 1,
				      "the image directory is missing");
	if (r)
		return r;
	options.image = argv[optind];

	if (connect && !by_libvirt) {
		log_error("restore: --connect goes with --domain");
		return RESULT_USAGE;
	}
	if (by_libvirt)
		return restore_domain(&options, name, connect, &common);
	r = flow_restore(&options, &report);
	if (!r)
		r = print_report(&options, &common, &report);
	restore_report_deinit(&report);
	return r;
}

const struct verb cmd_restore = {
	.name = "restore",
	.summary = "start QEMU from an image at once",
	.usage =
		"usage: snapuffd restore DIR [options] [-- QEMU ARGV…]\n"
		"\n"
		"Runs the VM of the image, beside the one that was dumped: QEMU maps the\n"
		"image's pages as its RAM and reads them when they are needed. The image does\n"
		"not change; many VMs can run from it. They write to a directory of their own:\n"
		"sockets, logs, and for each disk a fresh overlay.\n"
		"\n"
		"  --dir DIR        make that directory (default: one in /var/tmp)\n"
		"  --qmp PATH       listen for QMP there, in addition\n"
		"  --qemu PROGRAM   another QEMU than the recorded one\n"
		"  --eager          read all RAM before the VM runs\n"
		"  --disks HOW      fresh: an overlay each; as-is: what the command line says\n"
		"  --changed-disks  use disks that have changed since the dump\n"
		"  --domain [NAME]  a second domain of libvirt, from the image of one; by default\n"
		"                   of the old name and -clone; goes behind DIR\n"
		"  --connect URI    its daemon\n"
		"  --print          only show the command line\n"
		"  -- QEMU ARGV…    instead of the recorded command line; RAM and -incoming\n"
		"                   are still seen to\n" COMMON_USAGE "\n"
		"example: snapuffd restore /var/backups/vm1 --qmp /run/clone1.qmp\n",
	.run = run,
};
