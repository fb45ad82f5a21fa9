/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Where a snapshot goes: an image directory, or a migration stream.
 *
 *   destination_new_…  nothing is done yet
 *   begin              the target can be dumped, and was not touched: claims
 *                      the place
 *   sink               takes the captured pages (capture/capture.h)
 *   finish             all pages were taken: adds the rest; 0 when the snapshot
 *                      is whole
 *   free               at any point; what is not whole is removed
 *
 * Functions return 0, or RESULT_* / -errno after one error line.
 */

#include <stdint.h>

#include "base/cleanup.h"
#include "capture/capture.h"
#include "flow/ram.h"
#include "image/image.h"
#include "image/writer.h"
#include "qemu/devstate.h"
#include "qemu/vm.h"
#include "target/target.h"

/* What there is to say of a snapshot beside its pages. */
struct snapshot {
	const struct target *target;
	const struct ram *ram;
	const struct image_machine *machine;
	const struct devstate *devices; /* filled when it comes to finish */
	const struct vm_strings *unsafe;
	uint64_t started_ns;
	uint64_t started_unix_ns;
	uint64_t frozen_unix_ns;
};

struct destination {
	int (*begin)(struct destination *to, const struct snapshot *snapshot);
	/* Adds to `stats` how many pages held data, what was written, and how
	 * long it took. */
	int (*finish)(struct destination *to, const struct snapshot *snapshot,
		      struct image_stats *stats);
	void (*free)(struct destination *to);
	struct capture_sink sink;
};

/* NULL when there is no memory. Strings must live as long as it does. */
struct destination *destination_new_image(
	const char *dir, const struct image_writer_options *options);

/* `path` as for output_open(); `rate` in bytes a second, 0: no limit. */
struct destination *destination_new_stream(const char *path, uint64_t rate);

static inline void destination_freep(struct destination **to)
{
	if (*to)
		(*to)->free(*to);
	*to = NULL;
}

#define _cleanup_destination_ _cleanup_(destination_freep)
