/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/ramscan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/pagemap.h"
#include "sys/vmio.h"

/* What is read at once; and how much in all before giving up: the structures
 * are in QEMU's heap, of some MiB, which is looked at first. */
#define CHUNK	      (4 * MIB)
#define READ_MAX      (8 * GIB)
/* A target can fill its memory with what looks like a block, and is none. */
#define SEARCH_MAX_NS 60000000000ull

#define FLAG_SHARED	(1u << 1)
#define FLAG_RESIZEABLE (1u << 2)
#define FLAG_MIGRATABLE (1u << 4)

/* The head of QEMU's struct RAMBlock, as far as it is the same everywhere. */
struct remote_block {
	uint64_t rcu[2];
	uint64_t mr;
	uint64_t host;
	uint64_t colo_cache;
	uint64_t offset;
	uint64_t used_length;
	uint64_t max_length;
	uint64_t resized;
	uint32_t flags;
	char idstr[RAM_BLOCK_NAME_MAX + 1];
	uint32_t pad;
	uint64_t le_next; /* address of the next one's struct */
	uint64_t le_prev; /* address of the pointer that points to this one */
};

_Static_assert(offsetof(struct remote_block, host) == 0x18, "layout");
_Static_assert(offsetof(struct remote_block, offset) == 0x28, "layout");
_Static_assert(offsetof(struct remote_block, flags) == 0x48, "layout");
_Static_assert(offsetof(struct remote_block, idstr) == 0x4c, "layout");
_Static_assert(offsetof(struct remote_block, le_next) == 0x150, "layout");
_Static_assert(offsetof(struct remote_block, le_prev) == 0x158, "layout");

struct scan {
	pid_t pid;
	const struct proc_maps *maps;
	struct ram_blocks *blocks;
	size_t n_found;
	uint64_t bytes_read;
	uint64_t deadline_ns;
	uint8_t *buf; /* CHUNK bytes */
};

/* Whether [start, start + len) is mapped without a gap. */
static bool is_mapped(const struct proc_maps *maps, uint64_t start,
		      uint64_t len)
{
	const struct proc_map *map = proc_maps_find(maps, start);
	const struct proc_map *end = maps->maps + maps->n_maps;
	uint64_t mapped;

	if (!map)
		return false;
	for (mapped = map->range.end; mapped - start < len;
	     mapped = map->range.end) {
		map++;
		if (map == end || map->range.start != mapped)
			return false;
	}
	return true;
}

static bool points_to(pid_t pid, uint64_t at, uint64_t expected)
{
	uint64_t value;

	return !vm_read(pid, at, &value, sizeof(value)) && value == expected;
}

static bool is_linked(pid_t pid, uint64_t addr, const struct remote_block *b)
{
	uint64_t next_prev =
		b->le_next + offsetof(struct remote_block, le_prev);

	if (!points_to(pid, b->le_prev, addr))
		return false;
	return !b->le_next ||
	       points_to(pid, next_prev,
			 addr + offsetof(struct remote_block, le_next));
}

static bool is_same_block(const struct remote_block *remote,
			  const struct ram_block *block)
{
	return remote->offset == block->offset &&
	       remote->used_length == block->used_length &&
	       remote->max_length == block->max_length &&
	       (!block->host || remote->host == block->host) &&
	       !strncmp(remote->idstr, block->name, sizeof(remote->idstr));
}

static void take_block(struct ram_block *block, uint64_t addr,
		       const struct remote_block *remote)
{
	block->host = remote->host;
	block->shared = remote->flags & FLAG_SHARED;
	block->resizeable = remote->flags & FLAG_RESIZEABLE;
	block->migratable = remote->flags & FLAG_MIGRATABLE;
	block->struct_addr = addr;
	block->list_next = remote->le_next;
	block->list_prev = remote->le_prev;
}

/* Looks whether the bytes at `remote` are one of the blocks wanted. */
static void try_position(struct scan *scan, uint64_t addr,
			 const struct remote_block *remote)
{
	struct ram_block *block;
	size_t i;

	for (i = 0; i < scan->blocks->n_blocks; i++) {
		block = &scan->blocks->blocks[i];
		if (block->struct_addr || !is_same_block(remote, block))
			continue;
		if (!is_mapped(scan->maps, remote->host, block->max_length) ||
		    !is_linked(scan->pid, addr, remote))
			continue;
		take_block(block, addr, remote);
		scan->n_found++;
		return;
	}
}

/* All four are multiples of a page, which leaves next to nothing to compare
 * with the names. */
static inline bool may_be_block(const struct remote_block *remote)
{
	return remote->host && remote->max_length &&
	       !((remote->host | remote->offset | remote->used_length |
		  remote->max_length) &
		 (PAGE_SIZE - 1));
}

static bool is_done(const struct scan *scan)
{
	return scan->n_found == scan->blocks->n_blocks;
}

static bool is_over(const struct scan *scan)
{
	return is_done(scan) || scan->bytes_read > READ_MAX ||
	       now_ns() >= scan->deadline_ns;
}

static void search_chunk(struct scan *scan, uint64_t addr, size_t len)
{
	size_t i;

	/* An allocator's addresses are multiples of 16, but nothing promises
	 * it of the structure's own. */
	for (i = 0; i + sizeof(struct remote_block) <= len; i += 8) {
		const struct remote_block *remote = (void *)(scan->buf + i);

		if (!may_be_block(remote))
			continue;
		try_position(scan, addr + i, remote);
		if (is_over(scan))
			return;
	}
}

/* A page that went away meanwhile holds nothing either, but the others do. */
static void read_chunk(struct scan *scan, uint64_t addr, size_t len)
{
	size_t i;

	scan->bytes_read += len;
	if (!vm_read(scan->pid, addr, scan->buf, len))
		return;
	for (i = 0; i < len; i += PAGE_SIZE)
		if (vm_read(scan->pid, addr + i, scan->buf + i,
			    min_u64(len - i, PAGE_SIZE)))
			memset(scan->buf + i, 0, min_u64(len - i, PAGE_SIZE));
}

/* Searches a range of existing pages. Positive: nothing more is to be done. */
static int search_range(struct scan *scan, struct range range)
{
	uint64_t addr = range.start, len;

	while (addr < range.end) {
		len = min_u64(range.end - addr, CHUNK);
		read_chunk(scan, addr, len);
		search_chunk(scan, addr, len);
		if (is_over(scan))
			return 1;
		if (addr + len == range.end)
			return 0;
		/* A structure may lie across the chunk's end. */
		addr += len - PAGE_SIZE;
	}
	return 0;
}

/* Joins runs that differ only in their flags, as a structure may cross. */
struct run_joiner {
	struct scan *scan;
	struct range pending;
};

static int on_run(struct range run, unsigned flags, void *data)
{
	struct run_joiner *joiner = data;
	struct range search = joiner->pending;

	(void)flags;
	if (run.start == joiner->pending.end) {
		joiner->pending.end = run.end;
		return 0;
	}
	joiner->pending = run;
	return search_range(joiner->scan, search);
}

static int search_map(struct scan *scan, int pagemap_fd,
		      const struct proc_map *map)
{
	struct run_joiner joiner = { .scan = scan };
	int r;

	r = pagemap_walk(pagemap_fd, map->range, on_run, &joiner);
	return r ?: search_range(scan, joiner.pending);
}

/* Malloc's memory is private, writable, and of no file. */
static bool may_hold_structs(const struct proc_map *map)
{
	return map->read && map->write && !map->exec && !map->shared &&
	       (!map->path[0] || map->path[0] == '[');
}

static bool is_guest_size(const struct ram_blocks *blocks, uint64_t len)
{
	size_t i;

	for (i = 0; i < blocks->n_blocks; i++)
		if (blocks->blocks[i].max_length == len)
			return true;
	return false;
}

/* The order of search: heap, other mappings from small to large, and last
 * what has the size of a block, for it is likely that block. */
struct ranked_map {
	const struct proc_map *map;
	unsigned rank;
};

static int compare_rank(const void *a, const void *b)
{
	const struct ranked_map *x = a, *y = b;
	uint64_t x_len = range_len(x->map->range);
	uint64_t y_len = range_len(y->map->range);

	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return (x_len > y_len) - (x_len < y_len);
}

static int rank_maps(const struct scan *scan, struct ranked_map **out,
		     size_t *n_out)
{
	const struct proc_map *map;
	struct ranked_map *ranked;
	size_t i, n = 0;

	ranked = calloc(scan->maps->n_maps + 1, sizeof(*ranked));
	if (!ranked)
		return -ENOMEM;
	for (i = 0; i < scan->maps->n_maps; i++) {
		map = &scan->maps->maps[i];
		if (!may_hold_structs(map))
			continue;
		ranked[n].map = map;
		if (!strcmp(map->path, "[heap]"))
			ranked[n].rank = 0;
		else if (is_guest_size(scan->blocks, range_len(map->range)))
			ranked[n].rank = 2;
		else
			ranked[n].rank = 1;
		n++;
	}
	qsort(ranked, n, sizeof(*ranked), compare_rank);
	*out = ranked;
	*n_out = n;
	return 0;
}

static int search_all(struct scan *scan, int proc_fd, unsigned *n_searched)
{
	_cleanup_free_ struct ranked_map *ranked = NULL;
	_cleanup_close_ int pagemap_fd = -1;
	_cleanup_free_ void *buf = NULL;
	size_t i, n;
	int r;

	r = rank_maps(scan, &ranked, &n);
	if (r)
		return r;
	pagemap_fd = pagemap_open(proc_fd);
	if (pagemap_fd < 0)
		return pagemap_fd;
	scan->buf = buf = malloc(CHUNK);
	if (!buf)
		return -ENOMEM;

	for (i = 0; i < n && !is_done(scan); i++) {
		++*n_searched;
		r = search_map(scan, pagemap_fd, ranked[i].map);
		if (r < 0)
			return r;
		if (r)
			break;
	}
	return 0;
}

static int report_missing(const struct scan *scan)
{
	const struct ram_block *block = scan->blocks->blocks;

	while (block->struct_addr)
		block++;
	log_error("pid %d: ram block %s not found in QEMU's memory"
		  " (%zu of %zu found, %" PRIu64 " MiB searched)",
		  scan->pid, block->name, scan->n_found, scan->blocks->n_blocks,
		  scan->bytes_read / MIB);
	return RESULT_UNSUPPORTED;
}

int ramscan_find(pid_t pid, int proc_fd, const struct proc_maps *maps,
		 struct ram_blocks *blocks, struct ramscan_stats *stats)
{
	uint64_t start_ns = now_ns();
	struct scan scan = {
		.pid = pid,
		.maps = maps,
		.blocks = blocks,
		.deadline_ns = start_ns + SEARCH_MAX_NS,
	};
	unsigned n_maps = 0;
	size_t i;
	int r;

	for (i = 0; i < blocks->n_blocks; i++)
		blocks->blocks[i].struct_addr = 0;
	r = search_all(&scan, proc_fd, &n_maps);
	if (stats)
		*stats = (struct ramscan_stats){
			.bytes_read = scan.bytes_read,
			.n_maps = n_maps,
			.duration_ns = now_ns() - start_ns,
		};
	if (r < 0)
		return log_errno(r, "pid %d: search for ram blocks: %m", pid);
	return is_done(&scan) ? 0 : report_missing(&scan);
}

int ramscan_recheck(pid_t pid, const struct ram_blocks *blocks)
{
	struct remote_block remote;
	size_t i;
	int r;

	for (i = 0; i < blocks->n_blocks; i++) {
		const struct ram_block *block = &blocks->blocks[i];

		r = vm_read(pid, block->struct_addr, &remote, sizeof(remote));
		if (r == -ESRCH)
			return log_errno(r, "pid %d: the target died", pid);
		/* The links too: a new block changes its neighbour's. */
		if (!r && is_same_block(&remote, block) &&
		    remote.le_next == block->list_next &&
		    remote.le_prev == block->list_prev)
			continue;
		return log_errno(-ESTALE,
				 "pid %d: ram block %s, or one beside it,"
				 " changed during the snapshot",
				 pid, block->name);
	}
	return 0;
}
