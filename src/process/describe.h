/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Fills in what an image says of a process beside its memory and registers.
 */

#include "image/image.h"
#include "process/layout.h"
#include "target/target.h"
#include "target/tracer.h"

/* Who it is, its arguments, environment, credentials and open files, as they
 * are now. 0 or an error that is logged. */
int describe_process(struct image_process *process,
		     const struct target *target);

/* Its mappings. 0 or -ENOMEM. */
int describe_mappings(struct image_process *process,
		      const struct layout *layout, struct mapped_files *files);

/* The threads that belong to process `number` of the tracer, the main thread
 * first; their registers were read in the freeze. 0 or an error that is logged.
 */
int describe_threads(struct image_process *process, const struct target *target,
		     unsigned number, const struct tracer_thread *threads,
		     size_t n);
