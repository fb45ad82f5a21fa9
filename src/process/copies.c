/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "process/copies.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/pagemap.h"
#include "sys/vmio.h"

/* Room for what is written between the two looks. */
#define SPARE (4 * MIB)

/* From here on the freeze is longer than the user may expect. */
#define MUCH (64 * MIB)

/* What one call reads. */
#define READ_RUNS 512

static int add_run(struct range run, unsigned flags, void *data)
{
	struct copies *copies = data;

	(void)flags;
	if (copies->n_runs == copies->max_runs) {
		size_t max = copies->max_runs * 2 + 1024;
		struct range *runs =
			reallocarray(copies->runs, max, sizeof(*runs));

		if (!runs)
			return -ENOMEM;
		copies->runs = runs;
		copies->max_runs = max;
	}
	copies->runs[copies->n_runs++] = run;
	copies->len += range_len(run);
	return 0;
}

/* Pages that a file of memory holds; the process need not have them mapped. */
static int add_data(struct copies *copies, int fd, const struct proc_map *map)
{
	uint64_t end = map->offset + range_len(map->range);
	uint64_t to_addr = map->range.start - map->offset;
	uint64_t at = map->offset;
	int r = 0;

	while (!r && at < end) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		if ((uint64_t)data >= end)
			return 0;
		at = min_u64(ROUND_UP((uint64_t)hole, PAGE_SIZE), end);
		r = add_run((struct range){ to_addr + (uint64_t)data,
					    to_addr + at },
			    0, copies);
	}
	return r;
}

static int find_runs(struct copies *copies, int pagemap_fd,
		     const struct layout *layout,
		     const struct mapped_files *files)
{
	int r = 0;

	copies->n_runs = 0;
	copies->len = 0;
	for (size_t i = 0; !r && i < layout->maps.n_maps; i++) {
		const struct layout_item *item = &layout->items[i];
		struct range held = item->map->range;

		if (item->how != LAYOUT_COPY)
			continue;
		held.end = held.start + item->held;
		/* Of the vdso every page is the process's. */
		if (!item->map->inode)
			r = add_run(held, 0, copies);
		else if (layout_is_sysv(item->map))
			r = add_data(copies, files->files[item->file].fd,
				     item->map);
		else
			r = pagemap_walk_own(pagemap_fd, held, add_run, copies);
	}
	return r;
}

static int make_room(struct copies *copies, uint64_t size)
{
	uint8_t *data;

	if (size <= copies->size)
		return 0;
	data = mmap(NULL, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (data == MAP_FAILED)
		return -errno;
	if (copies->data)
		munmap(copies->data, copies->size);
	copies->data = data;
	copies->size = size;
	return 0;
}

static int failed(const struct copies *copies, int r)
{
	return log_errno(r, "pid %d: copying what cannot be protected: %m",
			 copies->pid);
}

int copies_prepare(struct copies *copies, int pagemap_fd,
		   const struct layout *layout,
		   const struct mapped_files *files)
{
	int r = find_runs(copies, pagemap_fd, layout, files);

	if (!r)
		r = make_room(copies, copies->len + SPARE);
	if (r)
		return failed(copies, r);
	if (copies->len > MUCH)
		log_warning(
			"pid %d: %llu MiB of memory (private pages of files on disks, System V shared memory) cannot be protected and are copied while it stands",
			copies->pid, (unsigned long long)(copies->len / MIB));
	return 0;
}

static int read_runs(struct copies *copies)
{
	uint8_t *to = copies->data;

	for (size_t i = 0; i < copies->n_runs;) {
		size_t n = min_u64(copies->n_runs - i, READ_RUNS), got;
		const struct range *runs = copies->runs + i;
		int r = vm_read_ranges(copies->pid, runs, n, to, &got);

		if (r == -EFAULT)
			r = vm_read_ranges_forced(copies->mem_fd, runs, n, to);
		if (r)
			return r;
		for (size_t k = 0; k < n; k++)
			to += range_len(runs[k]);
		i += n;
	}
	return 0;
}

int copies_take(struct copies *copies, int pagemap_fd,
		const struct layout *layout, const struct mapped_files *files)
{
	int r = find_runs(copies, pagemap_fd, layout, files);

	if (!r)
		r = make_room(copies, copies->len);
	if (!r)
		r = read_runs(copies);
	return r ? failed(copies, r) : 0;
}

void copies_deinit(struct copies *copies)
{
	free(copies->runs);
	if (copies->data)
		munmap(copies->data, copies->size);
	*copies = (struct copies){};
}
