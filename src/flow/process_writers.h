/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What may write to the memory of processes other than through their own page
 * tables, and whether they are dumped all the same.
 *
 * Others write to what is shared with them. That is so of every program with a
 * window, and of many that log; and a core of such a program is of use also
 * where a shared buffer is torn. So by default it is only said.
 *
 * Functions return 0, or RESULT_* / -errno after one error line.
 */

#include "flow/dump.h"
#include "flow/subject.h"
#include "flow/writers.h"

/* Adds the files that are memory of the subjects, as subject_list_files(). */
int process_writers_list(const struct subject *subjects, size_t n,
			 struct writers *writers, bool held);

/* Looks; nothing is touched. `writers` are then those to be covered, and what
 * is accepted is in `unsafe`; RESULT_UNSUPPORTED when something is not. */
int process_writers_judge(const struct dump_options *options,
			  const struct subject *subjects, size_t n,
			  struct writers *writers, struct vm_strings *unsafe);

/* Whether nobody else may come to share the memory. */
bool process_writers_are_strict(const struct dump_options *options);
