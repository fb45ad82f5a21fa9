/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/process_writers.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "flow/unsafe.h"

int process_writers_list(const struct subject *subjects, size_t n,
			 struct writers *writers, bool held)
{
	int r = 0;

	for (size_t i = 0; !r && i < n; i++)
		r = subject_list_files(&subjects[i], writers, held);
	return r;
}

bool process_writers_are_strict(const struct dump_options *options)
{
	return options->writers != DUMP_WRITERS_DEFAULT && !options->unsafe;
}

static int judge(const struct dump_options *options,
		 const struct vm_strings *reasons, bool refuse,
		 struct vm_strings *unsafe)
{
	if (refuse)
		return unsafe_refuse(
			options->pid, reasons,
			"--writers auto holds them back as well, --pid and --tree dump them as well, --unsafe goes on without");
	return unsafe_accept(options->pid, reasons, unsafe);
}

/* What is read from files after the instant: it is not held back anyway, and
 * who writes there is told of but not covered. */
static int judge_files(const struct dump_options *options,
		       const struct subject *subjects, size_t n,
		       const pid_t *pids, struct vm_strings *unsafe)
{
	const struct writers_policy nobody = {};
	_cleanup_vm_strings_ struct vm_strings others = {}, ignored = {};
	_cleanup_writers_ struct writers files = {};
	int r = process_writers_list(subjects, n, &files, false);

	if (!r)
		r = writers_open(&files, &nobody, pids, n, &others, &ignored);
	return r ? r
		 : judge(options, &others,
			 options->writers == DUMP_WRITERS_REFUSE &&
				 !options->unsafe,
			 unsafe);
}

int process_writers_judge(const struct dump_options *options,
			  const struct subject *subjects, size_t n,
			  struct writers *writers, struct vm_strings *unsafe)
{
	const struct writers_policy policy = { .all = options->writers ==
						      DUMP_WRITERS_AUTO };
	_cleanup_free_ pid_t *pids = calloc(n + 1, sizeof(*pids));
	_cleanup_vm_strings_ struct vm_strings others = {}, dma = {};
	int r;

	if (!pids)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		pids[i] = subjects[i].target.pid;
	r = process_writers_list(subjects, n, writers, true);
	for (size_t i = 0; !r && i < n; i++)
		r = writers_list_dma(&subjects[i].target, &dma);
	if (!r)
		r = writers_open(writers, &policy, pids, n, &others, &dma);
	if (!r)
		r = judge(options, &others, process_writers_are_strict(options),
			  unsafe);
	/* Pinned memory of a process need not be in its core. */
	if (!r)
		r = judge(options, &dma, false, unsafe);
	return r ? r : judge_files(options, subjects, n, pids, unsafe);
}
