/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "cmd/cmd.h"
#include "config.h"

static const struct verb *const verbs[] = {
	&cmd_check, &cmd_dump, &cmd_inspect, &cmd_verify, &cmd_convert, &cmd_restore,
};

static void print_help(void)
{
	printf("usage: snapuffd VERB [options]\n"
	       "\n"
	       "Consistent snapshots of live processes, taken from outside while they run.\n"
	       "\n");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		printf("  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
	printf("\n"
	       "snapuffd VERB --help tells the rest; --version the version.\n"
	       "Exit codes: 0 done; 1 failed, the target runs on unharmed; 2 usage; 3 this\n"
	       "host or target cannot be dumped; 4 the snapshot was inconsistent, discarded.\n");
}

static int run_verb(const struct verb *verb, int argc, char **argv)
{
	int r;

	if (common_help_shown(verb, argc, argv))
		return 0;
	r = verb->run(argc, argv);
	/* Out of memory, mostly: nobody logs that one. */
	if (r < 0 && !log_had_error())
		log_errno(r, "%s: %m", verb->name);
	return r;
}

int main(int argc, char **argv)
{
	interrupt_install();

	if (argc < 2) {
		log_error("a verb is missing; see snapuffd --help");
		return RESULT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help")) {
		print_help();
		return 0;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("snapuffd " SNAPUFFD_VERSION);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(argv[1], verbs[i]->name))
			return result_exit_code(
				run_verb(verbs[i], argc - 1, argv + 1));
	log_error("%s: is no verb; see snapuffd --help", argv[1]);
	return RESULT_USAGE;
}
