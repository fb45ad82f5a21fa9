/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Records of an image from the fuzzer's bytes, with those checksums set right
 * that a parser looks at first. A part is a record file without its magic.
 */

#include <stdint.h>
#include <string.h>

#include "fuzz.h"
#include "image/codec.h"
#include "image/record.h"

/* A record that is at its first message. */
void image_input_record(struct record *record, struct fuzz_part part);

/* Puts the right seal behind the first message of an inventory, if it has
 * one; the record is at its first message again. */
void image_input_seal(struct record *record);

/* Lets the inventory name files of fuzz_dir() as its parts, all that are there,
 * as long as they are; sealed. */
void image_input_name_parts(struct record *record, const char *const *names,
			    size_t n);

/* Makes the checksums of all runs of `pagemap` those of the file of that name
 * in fuzz_dir(), behind its first `skip` bytes. */
void image_input_sum_runs(struct record *pagemap, const char *name,
			  uint64_t skip);

/* The same for the frame of memory.core that process.img describes. */
void image_input_sum_frame(struct record *process);

/* The record as the file `name` of fuzz_dir(), with its magic. */
void image_input_put(const char *name, uint32_t magic,
		     const struct record *record);
