/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Shows how far a dump is, on stderr: one line that is rewritten, on a
 * terminal, or a JSON object a line.
 */

#include <stdbool.h>

#include "capture/capture.h"

enum progress_mode {
	PROGRESS_AUTO, /* a line if stderr is a terminal */
	PROGRESS_JSON,
	PROGRESS_NONE,
};

struct progress {
	enum progress_mode mode;
	bool shown; /* a line is on the terminal */
	uint64_t before_ns;
	uint64_t pages_before;
	struct histogram faults_before;
};

/* "auto", "json", "none"; RESULT_USAGE, logged. */
int progress_parse(struct progress *progress, const char *text);

bool progress_wanted(const struct progress *progress, bool quiet);

/* A capture_progress_fn; `opaque` is a struct progress. */
void progress_show(void *opaque, const struct capture_progress *now);

/* Clears the line. */
void progress_end(struct progress *progress);
