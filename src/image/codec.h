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

int encode_inventory(struct record *record,
		     const struct image_inventory *inventory,
		     const struct image_part *parts, size_t n_parts);
int encode_regions_begin(struct record *regions, struct record *pagemap);
/* The runs must be ascending. */
int encode_region(struct record *regions, struct record *pagemap,
		  unsigned number, const struct image_region *region);
int encode_machine(struct record *record, const struct image_machine *machine);
int encode_stats(struct record *record, const struct image_stats *stats);

/* `parts` is an array to free, with its names. */
int decode_inventory(struct record *record, struct image_inventory *inventory,
		     struct image_part **parts, size_t *n_parts);
int decode_regions(struct record *regions, struct record *pagemap,
		   struct image_region **out, size_t *n_regions);
int decode_machine(struct record *record, size_t n_regions,
		   struct image_machine *machine);
int decode_stats(struct record *record, struct image_stats *stats);
