/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Between the image's structures and its records. Encoders fill a record that
 * the caller deinits, and return 0 or -errno. Decoders take an untrusted
 * record: they return 0, or -EBADMSG for one whose messages are missing, too
 * many, or out of bounds; what they fill is the caller's to deinit either way.
 */

#include "image/image.h"
#include "image/record.h"

struct image_part {
	char *name;
	uint64_t size;
	uint64_t xxh3;
};

/* What tells whether the frame of memory.core is sound. */
struct image_frame_sums {
	uint64_t head_xxh3;
	uint64_t tail_offset; /* 0: there is no memory.core */
	uint64_t tail_size;
	uint64_t tail_xxh3;
};

int encode_inventory(struct record *record,
		     const struct image_inventory *inventory,
		     const struct image_part *parts, size_t n_parts);
int encode_regions_begin(struct record *regions, struct record *pagemap);
/* The runs must be ascending. */
int encode_region(struct record *regions, struct record *pagemap,
		  unsigned number, const struct image_region *region);
int encode_machine(struct record *record, const struct image_machine *machine);
/* process.img; mappings and threads have records of their own. */
int encode_process(struct record *record, const struct image_process *process,
		   const struct image_frame_sums *sums);
int encode_mappings(struct record *record, const struct image_process *process);
int encode_threads(struct record *record, const struct image_process *process);
int encode_stats(struct record *record, const struct image_stats *stats);

/* `parts` is an array to free, with its names. */
int decode_inventory(struct record *record, struct image_inventory *inventory,
		     struct image_part **parts, size_t *n_parts);
/* `core_end`: where in memory.core, of which each byte from the second page on
 * is in exactly one region, these end. */
int decode_regions(struct record *regions, struct record *pagemap,
		   struct image_region **out, size_t *n_regions,
		   uint64_t *core_end);
int decode_machine(struct record *record, size_t n_regions,
		   struct image_machine *machine);
int decode_process(struct record *record, struct image_process *process,
		   struct image_frame_sums *sums);
/* Into a process whose `mappings` and `threads` are still empty. */
int decode_mappings(struct record *record, struct image_process *process);
int decode_threads(struct record *record, struct image_process *process);
int decode_stats(struct record *record, struct image_stats *stats);
