/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The command line: one file a verb. A verb gets its own arguments (argv[0] is
 * its name) and returns what result_exit_code() turns into the exit code.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "image/image.h"

struct verb {
	const char *name;
	const char *summary;
	const char *usage; /* the whole help text */
	int (*run)(int argc, char **argv);
};

extern const struct verb cmd_check;
extern const struct verb cmd_dump;
extern const struct verb cmd_inspect;
extern const struct verb cmd_verify;
extern const struct verb cmd_convert;
extern const struct verb cmd_restore;

/* Options that every verb has; `O_COMMON` goes into its getopt_long table. */
struct common_options {
	bool json;
	bool quiet;
	unsigned verbose;
};

enum common_option {
	OPT_JSON = 256,
	OPT_QUIET,
	OPT_VERBOSE,
	OPT_HELP,
	OPT_FIRST, /* a verb's own start here */
};

/* clang-format off */
#define COMMON_LONG_OPTIONS                                                    \
	{ "json", no_argument, NULL, OPT_JSON },                               \
	{ "quiet", no_argument, NULL, OPT_QUIET },                             \
	{ "verbose", no_argument, NULL, OPT_VERBOSE },                         \
	{ "help", no_argument, NULL, OPT_HELP }
/* clang-format on */

#define COMMON_USAGE                                              \
	"  --json           one JSON object on stdout\n"          \
	"  --quiet          only errors\n"                        \
	"  --verbose        say what is done; twice: in detail\n" \
	"  --help           this text\n"

/*
 * Handles one of the common options. 0; RESULT_USAGE, logged, for anything
 * else that a verb did not know.
 */
int common_option(struct common_options *common, int option,
		  const struct verb *verb, char **argv);

/* Whether --help was given: the text has been printed. */
bool common_help_shown(const struct verb *verb, int argc, char **argv);

/* "412" -> 412; RESULT_USAGE, logged, for anything that is no process id. */
int parse_pid(const char *text, pid_t *pid);

/* A domain goes without what else would name the target (`others`), and
 * --connect with one only. 0 or RESULT_USAGE, logged. */
int check_domain_options(const struct verb *verb, const char *domain,
			 const char *connect, bool others);

/* "64M", "64MiB", "1G", "4096" -> bytes; RESULT_USAGE, logged. */
int parse_size(const char *option, const char *text, uint64_t *bytes);

/* Exactly `n` arguments that are no options from optind on, or RESULT_USAGE. */
int require_arguments(const struct verb *verb, int argc, int n,
		      const char *what);

/* For `--out -`: whether stdout can take a stream of bytes, and nothing else is
 * to go there. 0 or RESULT_USAGE, logged. */
int require_stdout(const struct verb *verb,
		   const struct common_options *common);

/* A path or name need not be UTF-8, JSON must: "?" then; null for NULL. */
json_t *text_to_json(const char *text);

/* A list of such texts. */
json_t *texts_to_json(char *const *texts, size_t n);

/* Prints and frees. 0, or -EIO when stdout does not take it. */
int print_json(json_t *object);

/* The keys that `dump` and `inspect` share. */
json_t *stats_to_json(const struct image_stats *stats);
void stats_print(FILE *to, const struct image_stats *stats);

/* "1.5 GiB"; `text` has room for 32 bytes. Returns it. */
const char *format_size(char *text, uint64_t bytes);
