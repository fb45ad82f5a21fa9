/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Where the snapshot of processes goes: an image for each.
 *
 * Functions return 0, or RESULT_* / -errno after one error line. What was not
 * committed is removed.
 */

#include "capture/capture.h"
#include "flow/dump.h"
#include "flow/subject.h"
#include "image/partial_dir.h"

struct process_images {
	const struct dump_options *options;
	struct subject *subjects;
	size_t n_subjects;
	struct capture *capture;
	struct partial_dir dir; /* of the images of a tree */
	char *spool;		/* a directory, where a stream is made */
};

#define PROCESS_IMAGES_INIT ((struct process_images){ .dir = PARTIAL_DIR_INIT })

/* Claims the places; nothing else was done yet. */
int process_images_begin(struct process_images *images,
			 const struct dump_options *options,
			 struct subject *subjects, size_t n_subjects);
void process_images_deinit(struct process_images *images);

/* Takes the captured pages; all of them are of `capture`, once that is set. */
struct capture_sink process_images_sink(struct process_images *images);
void process_images_set_capture(struct process_images *images,
				struct capture *capture);

/* All pages are there: completes the images. Of `inventory` what is the same
 * for all is set. Completes the stats. */
int process_images_commit(struct process_images *images,
			  const struct image_inventory *inventory,
			  uint64_t started_ns, struct image_stats *stats);
