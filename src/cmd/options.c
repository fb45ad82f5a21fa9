/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"

static int usage_error(const struct verb *verb, const char *what)
{
	log_error("%s: %s; see snapuffd %s --help", verb->name, what,
		  verb->name);
	return RESULT_USAGE;
}

int common_option(struct common_options *common, int option,
		  const struct verb *verb, char **argv)
{
	char what[256];

	switch (option) {
	case OPT_JSON:
		common->json = true;
		return 0;
	case OPT_QUIET:
		common->quiet = true;
		log_set_level(LOG_ERROR);
		return 0;
	case OPT_VERBOSE:
		common->verbose++;
		log_set_level(common->verbose > 1 ? LOG_DEBUG : LOG_INFO);
		return 0;
	case ':':
		snprintf(what, sizeof(what), "option %s needs a value",
			 argv[optind - 1]);
		return usage_error(verb, what);
	default:
		snprintf(what, sizeof(what), "unknown option %s",
			 argv[optind - 1]);
		return usage_error(verb, what);
	}
}

bool common_help_shown(const struct verb *verb, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--"))
			return false;
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(verb->usage, stdout);
			return true;
		}
	}
	return false;
}

int parse_pid(const char *text, pid_t *pid)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (errno || *end || end == text || value <= 0 || value > INT_MAX) {
		log_error("--pid %s: is no process id", text);
		return RESULT_USAGE;
	}
	*pid = (pid_t)value;
	return 0;
}

int parse_size(const char *option, const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	uint64_t unit = 1;
	const char *at;
	char *end;

	errno = 0;
	*bytes = strtoull(text, &end, 10);
	if (*end && (at = strchr(units, *end))) {
		unit = (uint64_t)1 << (10 * (at - units + 1));
		end++;
		if (!strcmp(end, "iB") || !strcmp(end, "B"))
			end += strlen(end);
	}
	if (errno || end == text || *end || *text == '-' || !*bytes ||
	    *bytes > INT64_MAX / unit) {
		log_error("%s %s: is no size; write bytes, or 512K, 64M, 2G",
			  option, text);
		return RESULT_USAGE;
	}
	*bytes *= unit;
	return 0;
}

int require_arguments(const struct verb *verb, int argc, int n,
		      const char *what)
{
	if (argc - optind == n)
		return 0;
	return usage_error(verb,
			   argc - optind < n ? what : "too many arguments");
}

int check_domain_options(const struct verb *verb, const char *domain,
			 const char *connect, bool others)
{
	if (domain && !*domain)
		return usage_error(verb, "--domain: the name is empty");
	if (domain && others)
		return usage_error(
			verb,
			"--domain is instead of --pid, --qmp and --as: libvirt knows all that");
	if (connect && !domain)
		return usage_error(verb, "--connect goes with --domain");
	return 0;
}

int require_stdout(const struct verb *verb, const struct common_options *common)
{
	const char *why = NULL;

	if (common->json)
		why = "--json and --out - both want stdout";
	else if (fcntl(STDOUT_FILENO, F_GETFL) < 0)
		why = "--out -: stdout is closed";
	else if (isatty(STDOUT_FILENO))
		why = "--out -: stdout is a terminal; send it to a program or file";
	if (!why)
		return 0;
	log_error("%s: %s", verb->name, why);
	return RESULT_USAGE;
}

const char *format_size(char *text, uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	size_t i = 0;

	while (value >= 1024 && i + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		i++;
	}
	snprintf(text, 32, i ? "%.1f %s" : "%.0f %s", value, units[i]);
	return text;
}
