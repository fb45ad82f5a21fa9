/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "flow/convert.h"

enum {
	OPT_TO = OPT_FIRST,
	OPT_OUT,
	OPT_DOMAIN_XML,
};

static const struct option long_options[] = {
	{ "to", required_argument, NULL, OPT_TO },
	{ "out", required_argument, NULL, OPT_OUT },
	{ "domain-xml", required_argument, NULL, OPT_DOMAIN_XML },
	COMMON_LONG_OPTIONS,
	{},
};

static int parse_format(const char *text, enum convert_format *format)
{
	if (!strcmp(text, "qemu")) {
		*format = CONVERT_QEMU;
	} else if (!strcmp(text, "devices")) {
		*format = CONVERT_DEVICES;
	} else if (!strcmp(text, "mapped-ram")) {
		*format = CONVERT_MAPPED_RAM;
	} else if (!strcmp(text, "libvirt")) {
		*format = CONVERT_LIBVIRT;
	} else if (!strcmp(text, "core")) {
		*format = CONVERT_CORE;
	} else if (!strcmp(text, "raw")) {
		*format = CONVERT_RAW;
	} else {
		log_error(
			"convert: --to %s: is no format; there are qemu, devices, mapped-ram, libvirt, core and raw",
			text);
		return RESULT_USAGE;
	}
	return 0;
}

static int run(int argc, char **argv)
{
	struct common_options common = {};
	enum convert_format format = CONVERT_QEMU;
	const char *to = NULL, *out = NULL, *xml = NULL;
	int option, r = 0;

	while (!r && (option = getopt_long(argc, argv, ":", long_options,
					   NULL)) != -1) {
		switch (option) {
		case OPT_TO:
			to = optarg;
			r = parse_format(to, &format);
			break;
		case OPT_OUT:
			out = optarg;
			break;
		case OPT_DOMAIN_XML:
			xml = optarg;
			break;
		default:
			r = common_option(&common, option, &cmd_convert, argv);
		}
	}
	if (!r)
		r = require_arguments(&cmd_convert, argc, 1,
				      "the image directory is missing");
	if (r)
		return r;
	if (!to || !out || !*out) {
		log_error(
			"convert: --to and --out are needed; see snapuffd convert --help");
		return RESULT_USAGE;
	}
	if (xml && format != CONVERT_LIBVIRT) {
		log_error("convert: --domain-xml goes with --to libvirt");
		return RESULT_USAGE;
	}
	if (!strcmp(out, "-"))
		r = require_stdout(&cmd_convert, &common);
	if (!r)
		r = xml ? flow_convert_libvirt(argv[optind], xml, out)
			: flow_convert(argv[optind], format, out);
	if (r)
		return r;
	if (common.json)
		return print_json(
			json_pack("{s:s, s:s}", "format", to, "out", out));
	return 0;
}

const struct verb cmd_convert = {
	.name = "convert",
	.summary = "turn an image into what QEMU, gdb or other tools load",
	.usage =
		"usage: snapuffd convert DIR --to FORMAT --out F [options]\n"
		"\n"
		"  --to qemu        a migration stream, for QEMU's -incoming 'exec:cat F'\n"
		"  --to devices     the same without RAM, for what restore --print shows\n"
		"  --to mapped-ram  a seekable file, for migrate-incoming file:F of QEMU >= 9.0\n"
		"  --to libvirt     a save image of a domain, for virsh restore F\n"
		"  --to core        a sparse ELF core of a process, for gdb and its like\n"
		"  --to raw         a directory with one sparse file of plain memory a region\n"
		"  --out F          what to write; must not exist; '-' streams (qemu, devices,\n"
		"                   libvirt, core)\n"
		"  --domain-xml X   to libvirt: the domain's XML, instead of the image's\n" COMMON_USAGE
		"\n"
		"example: snapuffd convert /var/backups/vm1 --to qemu --out vm1.mig\n",
	.run = run,
};
