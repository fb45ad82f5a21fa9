/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <getopt.h>
#include <stdio.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/dump.h"

enum {
	OPT_PID = OPT_FIRST,
	OPT_OUT,
	OPT_QMP,
	OPT_BUFFER,
	OPT_GRANULE,
};

static const struct option long_options[] = {
	{ "pid", required_argument, NULL, OPT_PID },
	{ "out", required_argument, NULL, OPT_OUT },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "buffer", required_argument, NULL, OPT_BUFFER },
	{ "granule", required_argument, NULL, OPT_GRANULE },
	COMMON_LONG_OPTIONS,
	{},
};

static int parse_granule(const char *text, uint64_t *bytes)
{
	int r = parse_size("--granule", text, bytes);

	if (r)
		return r;
	if (*bytes & (*bytes - 1) || *bytes < PAGE_SIZE || *bytes > PMD_SIZE) {
		log_error("--granule %s: must be a power of two from 4K to 2M",
			  text);
		return RESULT_USAGE;
	}
	return 0;
}

static int run(int argc, char **argv)
{
	struct dump_options options = {};
	struct common_options common = {};
	struct image_stats stats;
	int option, r = 0;

	while (!r && (option = getopt_long(argc, argv, ":", long_options,
					   NULL)) != -1) {
		switch (option) {
		case OPT_PID:
			r = parse_pid(optarg, &options.pid);
			break;
		case OPT_OUT:
			options.out = optarg;
			break;
		case OPT_QMP:
			options.qmp = optarg;
			break;
		case OPT_BUFFER:
			r = parse_size("--buffer", optarg,
				       &options.buffer_bytes);
			break;
		case OPT_GRANULE:
			r = parse_granule(optarg, &options.granule_bytes);
			break;
		default:
			r = common_option(&common, option, &cmd_dump, argv);
		}
	}
	if (!r)
		r = require_arguments(&cmd_dump, argc, 0, "");
	if (r)
		return r;
	if (!options.pid || !options.out || !*options.out) {
		log_error("dump: --pid and --out are needed; see snapuffd dump --help");
		return RESULT_USAGE;
	}

	r = flow_dump(&options, &stats);
	if (r)
		return r;
	if (common.json) {
		json_t *object = stats_to_json(&stats);

		json_object_set_new(object, "kind", json_string("qemu"));
		json_object_set_new(object, "complete", json_true());
		return print_json(object);
	}
	if (!common.quiet) {
		printf("image      %s\n", options.out);
		stats_print(&stats);
	}
	return 0;
}

const struct verb cmd_dump = {
	.name = "dump",
	.summary = "snapshot a running process into a directory",
	.usage =
		"usage: snapuffd dump --pid N --out DIR [options]\n"
		"\n"
		"Takes the memory and device state of a QEMU as they are at one instant,\n"
		"while it runs on, and writes them to DIR, which must not exist.\n"
		"\n"
		"  --pid N          the process\n"
		"  --out DIR        the image directory to make\n"
		"  --qmp PATH       its QMP socket, instead of searching for it\n"
		"  --buffer SIZE    memory for pages on their way to the disk, at least 16M\n"
		"                   (default: a quarter of what is available)\n"
		"  --granule SIZE   what one write fault captures where memory is not in\n"
		"                   huge pages, 4K to 2M (default: 256K)\n" COMMON_USAGE
		"\n"
		"example: snapuffd dump --pid $(pidof qemu-system-x86_64) --out /var/backups/vm1\n",
	.run = run,
};
