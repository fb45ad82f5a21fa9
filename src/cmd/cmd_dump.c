/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "cmd/progress.h"
#include "flow/dump.h"

/* For the command that runs while the VM stands. */
#define COMMAND_TIMEOUT_S     10u
#define COMMAND_TIMEOUT_MAX_S 3600u

enum {
	OPT_PID = OPT_FIRST,
	OPT_OUT,
	OPT_FORMAT,
	OPT_QMP,
	OPT_BUFFER,
	OPT_GRANULE,
	OPT_RATE_LIMIT,
	OPT_DISKS,
	OPT_EXEC_FROZEN,
	OPT_EXEC_FROZEN_TIMEOUT,
	OPT_PROGRESS,
	OPT_NO_IO_URING,
	OPT_NO_DIRECT,
};

static const struct option long_options[] = {
	{ "pid", required_argument, NULL, OPT_PID },
	{ "out", required_argument, NULL, OPT_OUT },
	{ "format", required_argument, NULL, OPT_FORMAT },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "buffer", required_argument, NULL, OPT_BUFFER },
	{ "granule", required_argument, NULL, OPT_GRANULE },
	{ "rate-limit", required_argument, NULL, OPT_RATE_LIMIT },
	{ "disks", required_argument, NULL, OPT_DISKS },
	{ "exec-frozen", required_argument, NULL, OPT_EXEC_FROZEN },
	{ "exec-frozen-timeout", required_argument, NULL,
	  OPT_EXEC_FROZEN_TIMEOUT },
	{ "progress", required_argument, NULL, OPT_PROGRESS },
	{ "no-io-uring", no_argument, NULL, OPT_NO_IO_URING },
	{ "no-direct", no_argument, NULL, OPT_NO_DIRECT },
	COMMON_LONG_OPTIONS,
	{},
};

static int parse_format(const char *text, enum dump_format *format)
{
	if (!strcmp(text, "image")) {
		*format = DUMP_IMAGE;
	} else if (!strcmp(text, "qemu")) {
		*format = DUMP_QEMU;
	} else {
		log_error(
			"dump: --format %s: is no format; there are image and qemu",
			text);
		return RESULT_USAGE;
	}
	return 0;
}

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

/* A plain number is MiB a second; with a suffix it is a size a second. */
static int parse_rate(const char *text, uint64_t *rate)
{
	int r = parse_size("--rate-limit", text, rate);

	if (!r && text[strspn(text, "0123456789")] == '\0') {
		if (*rate > INT64_MAX / MIB)
			return RESULT_USAGE;
		*rate *= MIB;
	}
	return r;
}

/* "overlay" or "overlay:DIR". */
static int parse_disks(const char *text, struct storage_options *storage)
{
	static const char with_dir[] = "overlay:";

	storage->overlay = true;
	storage->overlay_dir = NULL;
	if (!strcmp(text, "overlay"))
		return 0;
	if (strncmp(text, with_dir, strlen(with_dir))) {
		log_error("--disks %s: is not overlay or overlay:DIR", text);
		return RESULT_USAGE;
	}
	storage->overlay_dir = text + strlen(with_dir);
	/* QEMU opens it, whose working directory is another. */
	if (*storage->overlay_dir != '/') {
		log_error("--disks %s: DIR must be absolute, as the VM sees it",
			  text);
		return RESULT_USAGE;
	}
	return 0;
}

static int parse_seconds(const char *option, const char *text,
			 unsigned *seconds)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || !value ||
	    value > COMMAND_TIMEOUT_MAX_S) {
		log_error("%s %s: must be 1 to %u seconds", option, text,
			  COMMAND_TIMEOUT_MAX_S);
		return RESULT_USAGE;
	}
	*seconds = (unsigned)value;
	return 0;
}

static int check_options(const struct dump_options *options,
			 const struct common_options *common)
{
	if (!options->pid || !options->out || !*options->out) {
		log_error(
			"dump: --pid and --out are needed; see snapuffd dump --help");
		return RESULT_USAGE;
	}
	if (strcmp(options->out, "-"))
		return 0;
	if (options->format == DUMP_IMAGE) {
		log_error(
			"dump: --out -: an image is a directory; a stream is had with --format qemu");
		return RESULT_USAGE;
	}
	return require_stdout(&cmd_dump, common);
}

/* On stderr where stdout is the snapshot. */
static void print_summary(const struct dump_options *options,
			  const struct image_stats *stats)
{
	FILE *to = strcmp(options->out, "-") ? stdout : stderr;

	if (options->format == DUMP_IMAGE)
		fprintf(to, "image      %s\n", options->out);
	else
		fprintf(to, "stream     %s\n",
			to == stdout ? options->out : "stdout");
	stats_print(to, stats);
}

static int run(int argc, char **argv)
{
	struct progress progress = {};
	struct dump_options options = {
		.storage.command_timeout_s = COMMAND_TIMEOUT_S,
	};
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
		case OPT_FORMAT:
			r = parse_format(optarg, &options.format);
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
		case OPT_RATE_LIMIT:
			r = parse_rate(optarg, &options.writer.rate);
			break;
		case OPT_DISKS:
			r = parse_disks(optarg, &options.storage);
			break;
		case OPT_EXEC_FROZEN:
			options.storage.command = optarg;
			break;
		case OPT_EXEC_FROZEN_TIMEOUT:
			r = parse_seconds("--exec-frozen-timeout", optarg,
					  &options.storage.command_timeout_s);
			break;
		case OPT_PROGRESS:
			r = progress_parse(&progress, optarg);
			break;
		case OPT_NO_IO_URING:
			options.writer.no_uring = true;
			break;
		case OPT_NO_DIRECT:
			options.writer.no_direct = true;
			break;
		default:
			r = common_option(&common, option, &cmd_dump, argv);
		}
	}
	if (!r)
		r = require_arguments(&cmd_dump, argc, 0, "");
	if (!r)
		r = check_options(&options, &common);
	if (r)
		return r;

	if (progress_wanted(&progress, common.quiet)) {
		options.progress = progress_show;
		options.progress_opaque = &progress;
	}
	r = flow_dump(&options, &stats);
	progress_end(&progress);
	if (r)
		return r;
	if (common.json) {
		json_t *object = stats_to_json(&stats);

		json_object_set_new(object, "kind", json_string("qemu"));
		json_object_set_new(object, "complete", json_true());
		return print_json(object);
	}
	if (!common.quiet)
		print_summary(&options, &stats);
	return 0;
}

const struct verb cmd_dump = {
	.name = "dump",
	.summary = "snapshot a running process into a directory or stream",
	.usage =
		"usage: snapuffd dump --pid N --out DIR [options]\n"
		"       snapuffd dump --pid N --out F --format qemu [options]\n"
		"\n"
		"Takes the memory and device state of a QEMU as they are at one instant,\n"
		"while it runs on, and writes them to DIR or F, which must not exist.\n"
		"\n"
		"  --pid N          the process\n"
		"  --out DIR        the image directory to make\n"
		"  --format qemu    no image, but the stream that another QEMU takes with\n"
		"                   -incoming; --out - sends it to stdout\n"
		"  --qmp PATH       its QMP socket, instead of searching for it\n"
		"  --buffer SIZE    memory for pages on their way to the disk or reader, at\n"
		"                   least 16M (default: a quarter of what is available)\n"
		"  --granule SIZE   what one write fault captures where memory is not in\n"
		"                   huge pages, 4K to 2M (default: 256K)\n"
		"  --rate-limit N   write at most N MiB a second\n"
		"  --disks overlay[:DIR]\n"
		"                   the disks of the same instant: at it, each writable disk\n"
		"                   goes on in a new qcow2 file, in DIR or beside the old\n"
		"                   one, which stays as it was\n"
		"  --exec-frozen COMMAND\n"
		"                   run this in the pause, to snapshot volumes; if it fails,\n"
		"                   so does the dump\n"
		"  --exec-frozen-timeout SECONDS\n"
		"                   how long it may take (default: 10)\n"
		"  --progress HOW   auto (a line, on a terminal), json (an object each 250 ms\n"
		"                   on stderr), or none\n"
		"  --no-io-uring    write with threads even where io_uring is allowed\n"
		"  --no-direct      write through the page cache\n" COMMON_USAGE
		"\n"
		"example: snapuffd dump --pid $(pidof qemu-system-x86_64) --out /var/backups/vm1\n"
		"         snapuffd dump --pid 412 --out /var/backups/vm1 --disks overlay\n"
		"         snapuffd dump --pid 412 --out - --format qemu | ssh host 'cat >vm1.mig'\n",
	.run = run,
};
