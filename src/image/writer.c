/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/log.h"
#include "base/pace.h"
#include "base/page.h"
#include "base/util.h"
#include "image/codec.h"
#include "image/partial_dir.h"
#include "image/pwriter.h"
#include "snapuffd/image-format.h"

/* Enough to keep a fast disk busy with writes of 4 KiB, too. */
#define WRITES_AT_ONCE 64

struct writer_region {
	struct image_region desc; /* runs: all that were put, any order */
	size_t runs_size;
	int fd;
	int direct_fd; /* the same file with O_DIRECT, or -1 */
};

struct image_writer {
	struct partial_dir dir;

	struct writer_region *regions;
	size_t n_regions;

	struct image_part *parts;
	size_t n_parts;

	struct image_writer_options options;
	struct pwriter *pwriter;
	struct pace pace;
	bool direct;
	_Atomic uint64_t data_pages;
};

int image_writer_new(struct image_writer **out, const char *dir,
		     const struct image_writer_options *options)
{
	_cleanup_image_writer_ struct image_writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->dir = PARTIAL_DIR_INIT;
	w->options = *options;
	pace_init(&w->pace, options->rate);

	r = partial_dir_create(&w->dir, dir);
	if (r)
		return r;
	r = pwriter_new(&w->pwriter, WRITES_AT_ONCE, !options->no_uring);
	if (r)
		return log_errno(r, "%s: cannot start writing: %m", dir);
	/* Small direct writes want more at once than there are threads: 2.7
	 * times slower than through the page cache. */
	if (!strcmp(pwriter_name(w->pwriter), "threads"))
		w->options.no_direct = true;

	*out = steal_ptr(w);
	return 0;
}

struct image_writer *image_writer_free(struct image_writer *w)
{
	if (!w)
		return NULL;

	w->pwriter = pwriter_free(w->pwriter);
	for (size_t i = 0; i < w->n_regions; i++) {
		image_region_deinit(&w->regions[i].desc);
		close_fd(&w->regions[i].fd);
		close_fd(&w->regions[i].direct_fd);
	}
	free(w->regions);
	for (size_t i = 0; i < w->n_parts; i++)
		free(w->parts[i].name);
	free(w->parts);

	partial_dir_deinit(&w->dir);
	free(w);
	return NULL;
}

/* "rom@etc-acpi-tables.pages" of "/rom@etc/acpi/tables": a plain file name
 * that no other region has. To be freed. */
static char *pages_file_name(const struct image_writer *w, const char *region)
{
	char base[NAME_MAX - 32];
	size_t len = 0;
	char *name;

	for (; *region && len < sizeof(base) - 1; region++) {
		if (*region == '/' && !len)
			continue;
		if (*region == '/')
			base[len++] = '-';
		else if (*region <= ' ' || *region >= 0x7f ||
			 (*region == '.' && !len))
			base[len++] = '_';
		else
			base[len++] = *region;
	}
	base[len] = '\0';

	if (asprintf(&name, "%s" IMAGE_PAGES_SUFFIX, len ? base : "region") < 0)
		return NULL;
	for (size_t i = 0; i < w->n_regions; i++) {
		if (strcmp(w->regions[i].desc.pages_file, name))
			continue;
		free(name);
		if (asprintf(&name, "%s~%zu" IMAGE_PAGES_SUFFIX, base,
			     w->n_regions) < 0)
			return NULL;
		break;
	}
	return name;
}

int image_writer_add_region(struct image_writer *w,
			    const struct image_region *region)
{
	struct writer_region *regions, *new;

	regions = reallocarray(w->regions, w->n_regions + 1, sizeof(*regions));
	if (!regions)
		return -ENOMEM;
	w->regions = regions;
	new = &regions[w->n_regions];
	*new = (struct writer_region){
		.desc = {
			.name = strdup(region->name),
			.address = region->address,
			.length = region->length,
			.page_size = region->page_size,
			.backing = region->backing,
			.file = region->file ? strdup(region->file) : NULL,
			.pages_file = pages_file_name(w, region->name),
		},
		.fd = -1,
		.direct_fd = -1,
	};
	w->n_regions++;
	if (!new->desc.name || !new->desc.pages_file)
		return -ENOMEM;

	new->fd = openat(w->dir.fd, new->desc.pages_file,
			 O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (new->fd < 0)
		return log_errno(-errno, "%s: cannot create %s: %m",
				 w->dir.path, new->desc.pages_file);
	if (ftruncate(new->fd, (off_t)region->length))
		return log_errno(-errno, "%s: cannot size %s: %m", w->dir.path,
				 new->desc.pages_file);
	if (!w->options.no_direct)
		new->direct_fd = openat(w->dir.fd, new->desc.pages_file,
					O_WRONLY | O_DIRECT | O_CLOEXEC);
	w->direct = new->direct_fd >= 0;
	return 0;
}

static int add_run(struct writer_region *region, struct image_run run)
{
	struct image_region *desc = &region->desc;

	if (desc->n_runs == region->runs_size) {
		size_t size = region->runs_size ? region->runs_size * 2 : 1024;
		struct image_run *runs =
			reallocarray(desc->runs, size, sizeof(*runs));

		if (!runs)
			return -ENOMEM;
		desc->runs = runs;
		region->runs_size = size;
	}
	desc->runs[desc->n_runs++] = run;
	return 0;
}

/* Logs the failure of a write; which one is not known any more. */
static int write_failed(const struct image_writer *w, int r)
{
	return log_errno(r, "%s: writing pages: %m", w->dir.path);
}

static int put_run(struct image_writer *w, struct writer_region *region,
		   uint64_t first, uint64_t n, const uint8_t *data,
		   struct hold *hold)
{
	size_t len = n * PAGE_SIZE;
	int fd = region->direct_fd >= 0 ? region->direct_fd : region->fd;
	int r;

	pace_wait(&w->pace, len);
	r = pwriter_submit(w->pwriter, fd, region->fd, data, len,
			   first * PAGE_SIZE, hold);
	if (r)
		return write_failed(w, r);
	atomic_fetch_add(&w->data_pages, n);
	return add_run(region,
		       (struct image_run){ first, n, XXH3_64bits(data, len) });
}

int image_writer_put_pages(struct image_writer *w, unsigned region,
			   uint64_t first, uint64_t n, const void *data,
			   struct hold *hold)
{
	uint64_t at = page_find_data(data, 0, n), end;
	int r;

	for (; at < n; at = page_find_data(data, end, n)) {
		end = page_find_zero(data, at, n);
		r = put_run(w, &w->regions[region], first + at, end - at,
			    (const uint8_t *)data + at * PAGE_SIZE, hold);
		if (r)
			return r;
	}
	return 0;
}

int image_writer_wait(struct image_writer *w)
{
	int r = pwriter_wait(w->pwriter);

	return r < 0 ? write_failed(w, r) : r;
}

void image_writer_drain(struct image_writer *w)
{
	pwriter_drain(w->pwriter);
}

const char *image_writer_method(const struct image_writer *w)
{
	bool uring = !strcmp(pwriter_name(w->pwriter), "io_uring");

	if (uring)
		return w->direct ? "io_uring, direct" : "io_uring, buffered";
	return w->direct ? "threads, direct" : "threads, buffered";
}

uint64_t image_writer_data_pages(const struct image_writer *w)
{
	return atomic_load(&w->data_pages);
}

int image_writer_put_file(struct image_writer *w, const char *name,
			  const void *data, size_t len)
{
	_cleanup_close_ int fd = -1;
	struct image_part *parts;
	int r;

	parts = reallocarray(w->parts, w->n_parts + 1, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	w->parts = parts;
	parts[w->n_parts] = (struct image_part){
		.name = strdup(name),
		.size = len,
		.xxh3 = XXH3_64bits(data, len),
	};
	if (!parts[w->n_parts].name)
		return -ENOMEM;
	w->n_parts++;

	fd = openat(w->dir.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
		    0600);
	if (fd < 0)
		return log_errno(-errno, "%s: cannot create %s: %m",
				 w->dir.path, name);
	r = io_write_full(fd, data, len);
	if (!r && fsync(fd))
		r = -errno;
	if (r)
		return log_errno(r, "%s: writing %s: %m", w->dir.path, name);
	return 0;
}

static int put_record(struct image_writer *w, const char *name,
		      const struct record *record)
{
	return image_writer_put_file(w, name, record->data, record->len);
}

int image_writer_put_machine(struct image_writer *w,
			     const struct image_machine *machine)
{
	_cleanup_record_ struct record record = {};
	int r = encode_machine(&record, machine);

	return r ? r : put_record(w, IMAGE_MACHINE, &record);
}

static int compare_runs(const void *a, const void *b)
{
	const struct image_run *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

static int put_regions(struct image_writer *w)
{
	_cleanup_record_ struct record regions = {}, pagemap = {};
	int r;

	r = encode_regions_begin(&regions, &pagemap);
	for (size_t i = 0; !r && i < w->n_regions; i++) {
		struct image_region *desc = &w->regions[i].desc;

		if (desc->n_runs)
			qsort(desc->runs, desc->n_runs, sizeof(*desc->runs),
			      compare_runs);
		r = encode_region(&regions, &pagemap, (unsigned)i, desc);
	}
	if (!r)
		r = put_record(w, IMAGE_REGIONS, &regions);
	if (!r)
		r = put_record(w, IMAGE_PAGEMAP, &pagemap);
	return r;
}

int image_writer_sync(struct image_writer *w)
{
	int r;

	do {
		r = image_writer_wait(w);
	} while (r > 0);
	if (r)
		return r;
	for (size_t i = 0; i < w->n_regions; i++)
		if (fdatasync(w->regions[i].fd))
			return log_errno(-errno, "%s: writing %s: %m",
					 w->dir.path,
					 w->regions[i].desc.pages_file);
	return 0;
}

int image_writer_commit(struct image_writer *w,
			const struct image_inventory *inventory,
			const struct image_stats *stats)
{
	_cleanup_record_ struct record stats_record = {}, record = {};
	int r;

	r = image_writer_sync(w);
	if (!r)
		r = put_regions(w);
	if (!r)
		r = encode_stats(&stats_record, stats);
	if (!r)
		r = put_record(w, IMAGE_STATS, &stats_record);
	if (!r)
		r = encode_inventory(&record, inventory, w->parts, w->n_parts);
	if (!r)
		r = put_record(w, IMAGE_INVENTORY, &record);
	return r ? r : partial_dir_commit(&w->dir);
}
