/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * One process of a snapshot, from its pid to its image. The functions are the
 * steps of its life, in order; those marked so come while it stands.
 *
 * All return 0, or RESULT_* / -errno after one error line.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "capture/capture.h"
#include "flow/cover.h"
#include "flow/writers.h"
#include "image/image.h"
#include "image/writer.h"
#include "process/copies.h"
#include "process/files.h"
#include "process/layout.h"
#include "target/target.h"
#include "target/tracer.h"

struct subject {
	struct target target;
	unsigned number; /* the engine's and the tracer's */
	int pagemap_fd, mem_fd;
	struct smap *smaps;
	struct layout_rules rules;
	struct mapped_files *files; /* of all processes of the snapshot */
	struct layout layout;	    /* of the instant, once it was */
	struct cover cover;
	struct copies copies;
	struct image_process process;
	struct image_writer *writer;
};

/* Looks at it; it is not touched. `files` must live as long. */
int subject_open(struct subject *subject, pid_t pid, bool all,
		 struct mapped_files *files);
void subject_close(struct subject *subject);

/* Bytes that have to be captured, about. */
uint64_t subject_size(const struct subject *subject);

/* Tells `writers` which files it has mapped shared, that others may write to:
 * `held`, those that are captured or copied in the instant, or else those that
 * are read later. */
int subject_list_files(const struct subject *subject, struct writers *writers,
		       bool held);

/* Takes a userfaultfd of its memory, for the engine. */
int subject_infect(struct subject *subject, struct capture *capture,
		   uint64_t features);

int subject_add_to_tracer(struct subject *subject, struct tracer *tracer);

/* Standing, for the first time: has the engine know of what it has mapped. */
int subject_cover(struct subject *subject, struct capture *capture);

/* The last that is done while it runs. */
int subject_prepare(struct subject *subject);

/* Standing: what it has mapped, what must be copied; its regions' places in the
 * image are fixed from here on. */
int subject_take(struct subject *subject, struct capture *capture);

/* Whether the engine captures some of that file. */
bool subject_captures_file(const struct subject *subject, size_t file);

/* Its threads, from the tracer. */
int subject_describe(struct subject *subject, const struct tracer *tracer);

/* Pages of the engine's `range`, for its image. */
int subject_put(struct subject *subject, struct range range, const void *data,
		struct hold *hold);

/* Everything that is not captured by the engine: copies, parts of files. All
 * pages of the engine were put. */
int subject_put_rest(struct subject *subject);
