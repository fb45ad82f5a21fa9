/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A region of the target while it is captured: what exists in it, what is
 * protected, and who captures what.
 *
 * Three units. A *page* is 4 KiB; `populated`, `noted` and
 * `removed` count in pages from the region's start. An *extent* is 2 MiB of
 * aligned address space, what one page-table directory entry covers: huge or
 * not, armed or not. A *block* is what one capture takes: a whole huge extent,
 * or else a granule, so that a huge page is never unprotected in part, which
 * would split it. Blocks are numbered by their first granule; since the
 * division never changes after arming, one bit says who owns all of a block.
 *
 * A block is in one of these states, once capture has begun:
 *   todo            protected, not captured
 *   neither         owned by the thread that cleared `todo`; being copied
 *   done            copied; its owner unprotects it now, or has done so
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bitmap.h"
#include "base/util.h"
#include "capture/slab.h"
#include "sys/filemap.h"

enum extent_flags {
	EXTENT_ARMED = 1,
	EXTENT_HUGE = 2,
};

/* What the caller knows of a region. */
struct region_desc {
	unsigned space;	    /* its number, of capture_add_space() */
	struct range range; /* page-aligned, in the target */
	uint64_t page_size; /* of the mapping: 4 KiB, or hugetlb's 2 MiB */
	/*
	 * The file behind it, `fd_offset` bytes into which is range.start; -1
	 * for anonymous memory. Owned by the caller.
	 */
	int fd;
	uint64_t fd_offset;
	bool shared; /* mapped shared: the file is the memory */
	/*
	 * Which file it is, where other regions may map it, too, in this space
	 * or another: what is written through one changes all that overlap in
	 * the file. 0: nobody else maps it. With it, `fd_offset` is needed even
	 * without `fd`.
	 */
	uint64_t file_id;
	/* Its pages are those of other regions, of the same file: nothing is
	 * given to the sink, but its writers wait for what is. */
	bool guard;
};

/*
 * A run of the region's pages that is still there. `range` are addresses as of
 * desc.range, by which pages and blocks are numbered; `addr` is where
 * range.start is mapped now.
 */
struct region_part {
	struct range range;
	uint64_t addr;
};

struct region_parts {
	size_t n;
	struct region_part part[]; /* ascending */
};

/* Where the pages of a range, of one extent at most, are mapped. */
struct region_place {
	size_t n;
	struct region_part part[PMD_PAGES];
};

struct space;
struct shared_file;

struct region {
	struct region_desc desc;
	struct space *space;
	struct shared_file *file; /* NULL: nobody else maps it */
	unsigned number;
	bool registered;
	struct region_parts *parts;
	uint64_t n_moves;	/* of some of it, since the capture began */
	struct filemap filemap; /* of the file behind it: file.c */
	uint64_t base;		/* range.start, rounded down to an extent */
	unsigned granule;	/* pages; a power of two, at most PMD_PAGES */
	size_t n_extents;
	uint8_t *extents; /* enum extent_flags each */
	struct bitmap populated;
	struct bitmap backed; /* private mappings: pages that the file has */
	struct bitmap own;    /* by extent: own.c */
	struct bitmap filled; /* of these, what is not all zeros */
	struct bitmap noted;
	struct bitmap removed; /* changed since arming: see the freeze */
	struct bitmap todo;    /* by block number */
	struct bitmap done;
	struct bitmap wanted; /* a fault waits, and the owner won't release */
};

/* Whether holes of its file tell what is not there: a hole where there was a
 * page is a loss. */
static inline bool region_has_file(const struct region *region)
{
	return region->desc.fd >= 0 && !region->desc.guard;
}

/* Whether what is there, is there wherever it is mapped. */
static inline bool region_is_file(const struct region *region)
{
	return region_has_file(region) && region->desc.shared;
}

struct block {
	uint64_t number;
	struct range range; /* of addresses, within the region */
};

/* `granule_bytes`: a power of two from 4 KiB to 2 MiB; `hole_fd`: of
 * filemap_open(). */
int region_init(struct region *region, const struct region_desc *desc,
		uint64_t granule_bytes, int hole_fd);
void region_deinit(struct region *region);

static inline uint64_t region_n_pages(const struct region *region)
{
	return range_len(region->desc.range) / PAGE_SIZE;
}

static inline uint64_t region_page(const struct region *region, uint64_t addr)
{
	return (addr - region->desc.range.start) / PAGE_SIZE;
}

static inline uint64_t region_addr(const struct region *region, uint64_t page)
{
	return region->desc.range.start + page * PAGE_SIZE;
}

static inline size_t region_extent(const struct region *region, uint64_t addr)
{
	return (size_t)((addr - region->base) / PMD_SIZE);
}

/*
 * What there is at or behind rest->start; moves that behind it. False when
 * there is nothing more in `rest`.
 */
bool region_next_part(const struct region *region, struct range *rest,
		      struct region_part *part);

/* Without `range`, which is gone for good. -ENOMEM, and nothing has changed. */
int region_cut(struct region *region, struct range range);

/*
 * `range`, of which all is there, is mapped at `addr` from now on. -ENOMEM, and
 * nothing has changed.
 */
int region_move(struct region *region, struct range range, uint64_t addr);

void region_find_place(const struct region *region, struct range range,
		       struct region_place *place);

/* The part of an extent that is in the region. */
struct range region_extent_range(const struct region *region, size_t extent);

/* The block that holds `addr`. */
struct block region_block(const struct region *region, uint64_t addr);

/*
 * Whether extents without a page stay unprotected: they are looked at again in
 * the freeze, and so keep their empty page-table entry, and with it the chance
 * of a huge page later. Files' pages may exist without being mapped.
 */
static inline bool region_is_sparse(const struct region *region)
{
	return region->desc.fd < 0 && region->desc.page_size == PAGE_SIZE;
}

/* Whether each extent is one block whatever the page tables say. */
static inline bool region_is_hugetlb(const struct region *region)
{
	return region->desc.page_size == PMD_SIZE;
}

/*
 * Marks as populated what the page tables and the file hold now, within
 * `range`. Behind an armed range a page that shows as swapped may be a mere
 * marker of its protection: with `markers` it is not taken for a page.
 */
int region_find_populated(struct region *region, int pagemap_fd,
			  struct range range, bool markers);

/*
 * Whether every populated page of a place is still protected: then nobody has
 * written to it since it was armed, for no bit comes back once it is lost. With
 * `all` it must be there, too. 0; -ESTALE when one is not; -errno.
 */
int region_check_protected(const struct region *region, int pagemap_fd,
			   const struct region_place *place, bool all);

/*
 * Copies the populated pages of `range` to the end of `slab`, which must have
 * room, a segment for each run of them; `place` is where they are. 0; -ENOENT
 * when pages are gone; -ESRCH when the target is; -errno.
 */
int region_copy(const struct region *region, struct range range,
		const struct region_place *place, struct slab *slab);
