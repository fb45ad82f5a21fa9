/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "cmd/cmd.h"

int progress_parse(struct progress *progress, const char *text)
{
	if (!strcmp(text, "auto")) {
		progress->mode = PROGRESS_AUTO;
	} else if (!strcmp(text, "json")) {
		progress->mode = PROGRESS_JSON;
	} else if (!strcmp(text, "none")) {
		progress->mode = PROGRESS_NONE;
	} else {
		log_error("--progress %s: there are auto, json and none", text);
		return RESULT_USAGE;
	}
	return 0;
}

bool progress_wanted(const struct progress *progress, bool quiet)
{
	if (progress->mode == PROGRESS_AUTO)
		return !quiet && isatty(STDERR_FILENO);
	return progress->mode == PROGRESS_JSON;
}

/* What happened since the last report. */
struct interval {
	double seconds;
	double bytes_per_s; /* given to the sink */
	double faults_per_s;
	double p99_us;
	double left_s; /* until all is written; -1: not known */
};

static struct interval measure(struct progress *progress,
			       const struct capture_progress *now)
{
	struct histogram faults, recent;
	struct interval interval = { .left_s = -1 };
	uint64_t pages = now->pages_written - progress->pages_before;

	histogram_copy(&faults, now->faults);
	recent = faults;
	histogram_subtract(&recent, &progress->faults_before);

	interval.seconds =
		(double)(now->elapsed_ns - progress->before_ns) / 1e9;
	if (interval.seconds <= 0)
		interval.seconds = 1e-3;
	interval.bytes_per_s = (double)(pages * PAGE_SIZE) / interval.seconds;
	interval.faults_per_s = (double)recent.n / interval.seconds;
	interval.p99_us = (double)histogram_quantile(&recent, 0.99) / 1e3;
	if (now->pages_written)
		interval.left_s =
			(double)(now->pages_all - now->pages_written) *
			((double)now->elapsed_ns / 1e9) /
			(double)now->pages_written;

	progress->before_ns = now->elapsed_ns;
	progress->pages_before = now->pages_written;
	progress->faults_before = faults;
	return interval;
}

static void show_line(struct progress *progress,
		      const struct capture_progress *now,
		      const struct interval *interval)
{
	double all = (double)max_u64(now->pages_all, 1);
	char rate[32], left[32] = "";

	if (interval->left_s >= 0)
		snprintf(left, sizeof(left), ", %.0f s left", interval->left_s);
	fprintf(stderr,
		"\r\033[Kcaptured %.0f %%, written %.0f %%, %s/s, %.0f faults/s, p99 %.0f us%s",
		(double)now->pages_captured * 100 / all,
		(double)now->pages_written * 100 / all,
		format_size(rate, (uint64_t)interval->bytes_per_s),
		interval->faults_per_s, interval->p99_us, left);
	fflush(stderr);
	progress->shown = true;
}

static void show_json(const struct capture_progress *now,
		      const struct interval *interval)
{
	json_t *object = json_pack(
		"{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "pages_all",
		(json_int_t)now->pages_all, "pages_captured",
		(json_int_t)now->pages_captured, "pages_written",
		(json_int_t)now->pages_written, "elapsed_ms",
		(double)now->elapsed_ns / 1e6, "bytes_per_s",
		interval->bytes_per_s, "faults_per_s", interval->faults_per_s,
		"p99_us", interval->p99_us, "left_s", interval->left_s);

	if (object) {
		json_dumpf(object, stderr, JSON_COMPACT);
		fputc('\n', stderr);
	}
	json_decref(object);
}

void progress_show(void *opaque, const struct capture_progress *now)
{
	struct progress *progress = opaque;
	struct interval interval = measure(progress, now);

	if (progress->mode == PROGRESS_JSON)
		show_json(now, &interval);
	else
		show_line(progress, now, &interval);
}

void progress_end(struct progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->shown = false;
}
