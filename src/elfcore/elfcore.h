/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What makes memory.core an ELF core such as the kernel writes: the ELF header,
 * which is its first page, and behind the pages the notes and program headers.
 * Sources: fs/binfmt_elf.c, include/linux/elfcore.h, elf(5).
 */

#include <stddef.h>
#include <stdint.h>

#include "image/image.h"

/*
 * Fills a frame, to be freed with image_frame_deinit(), for a process of which
 * the `n` regions, in any order and not overlapping, are in memory.core, and
 * whose last region ends there at `tail_offset`, a multiple of 4096. 0,
 * -ENOMEM, or -EINVAL: there is no thread, or one whose registers are of no
 * known size.
 */
int elfcore_build(const struct image_process *process,
		  const struct image_region *regions, size_t n,
		  uint64_t tail_offset, struct image_frame *frame);
