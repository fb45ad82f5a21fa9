/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/inject.h"
#include "base/io.h"
#include "base/log.h"
#include "base/page.h"
#include "base/util.h"
#include "image/writer_internal.h"
#include "snapuffd/image-format.h"

/* Regions, and the files that their pages go to. */

void pages_file_close(struct pages_file *file)
{
	close_fd(&file->fd);
	close_fd(&file->direct_fd);
}

struct writer_region *writer_region_free(struct writer_region *region)
{
	image_region_deinit(&region->desc);
	pages_file_close(&region->own);
	free(region);
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
		if (strcmp(w->regions[i]->desc.pages_file, name))
			continue;
		free(name);
		if (asprintf(&name, "%s~%zu" IMAGE_PAGES_SUFFIX, base,
			     w->n_regions) < 0)
			return NULL;
		break;
	}
	return name;
}

static int create_pages_file(struct image_writer *w, const char *name,
			     uint64_t len, struct pages_file *file)
{
	file->fd = openat(w->dir.fd, name,
			  O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file->fd < 0)
		return log_errno(-errno, "%s: cannot create %s: %m",
				 w->dir.path, name);
	if (INJECT_ERRNO("image-size") || ftruncate(file->fd, (off_t)len))
		return log_errno(-errno, "%s: cannot size %s: %m", w->dir.path,
				 name);
	if (!w->options.no_direct)
		file->direct_fd = openat(w->dir.fd, name,
					 O_WRONLY | O_DIRECT | O_CLOEXEC);
	w->direct = file->direct_fd >= 0;
	return 0;
}

int image_writer_use_core(struct image_writer *w)
{
	assert(!w->n_regions && !w->core_end);
	w->core_end = w->core_len = PAGE_SIZE;
	return create_pages_file(w, IMAGE_CORE, w->core_len, &w->core);
}

static struct writer_region *new_region(const struct image_writer *w,
					const struct image_region *region)
{
	struct writer_region *new = calloc(1, sizeof(*new));

	if (!new)
		return NULL;
	new->own = PAGES_FILE_INIT;
	new->desc = (struct image_region){
		.name = strdup(region->name),
		.address = region->address,
		.length = region->length,
		.page_size = region->page_size,
		.backing = region->backing,
		.file = region->file ? strdup(region->file) : NULL,
		.pages_file = w->core_end ? strdup(IMAGE_CORE)
					  : pages_file_name(w, region->name),
	};
	if (new->desc.name &&new->desc.pages_file &&
	    !region->file == !new->desc.file)
		return new;
	return writer_region_free(new);
}

static bool has_room(struct image_writer *w)
{
	size_t size = w->regions_size ? w->regions_size * 2 : 64;
	struct writer_region **regions;

	if (w->n_regions < w->regions_size)
		return true;
	regions = reallocarray(w->regions, size, sizeof(*regions));
	if (!regions)
		return false;
	w->regions = regions;
	w->regions_size = size;
	return true;
}

/* Takes the region over; -ENOMEM frees it. */
static int append_region(struct image_writer *w, struct writer_region *new)
{
	bool room;

	pthread_mutex_lock(&w->lock);
	room = has_room(w);
	if (room) {
		if (w->core_end) {
			new->desc.pages_offset = w->core_end;
			w->core_end += new->desc.length;
		}
		w->regions[w->n_regions++] = new;
	}
	pthread_mutex_unlock(&w->lock);
	if (room)
		return 0;
	writer_region_free(new);
	return -ENOMEM;
}

int image_writer_add_region(struct image_writer *w,
			    const struct image_region *region)
{
	struct writer_region *new = new_region(w, region);
	int r;

	assert(!w->has_process);
	r = new ? append_region(w, new) : -ENOMEM;
	if (r || w->core_end)
		return r;
	return create_pages_file(w, new->desc.pages_file, region->length,
				 &new->own);
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

int image_writer_list_regions(struct image_writer *w,
			      struct image_region **regions, size_t *n)
{
	*regions = calloc(w->n_regions + 1, sizeof(**regions));
	if (!*regions)
		return -ENOMEM;
	*n = w->n_regions;
	for (size_t i = 0; i < *n; i++) {
		(*regions)[i] = w->regions[i]->desc;
		/* Those may be growing. */
		(*regions)[i].runs = NULL;
		(*regions)[i].n_runs = 0;
	}
	return 0;
}

uint64_t image_writer_tail_offset(const struct image_writer *w)
{
	return w->core_end;
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
	const struct pages_file *file =
		region->desc.pages_offset ? &w->core : &region->own;
	int fd = file->direct_fd >= 0 ? file->direct_fd : file->fd;
	size_t len = n * PAGE_SIZE;
	int r;

	pace_wait(&w->pace, len);
	r = pwriter_submit(w->pwriter, fd, file->fd, data, len,
			   region->desc.pages_offset + first * PAGE_SIZE, hold);
	if (r)
		return write_failed(w, r);
	atomic_fetch_add(&w->data_pages, n);
	return add_run(region,
		       (struct image_run){ first, n, XXH3_64bits(data, len) });
}

static struct writer_region *find_region(struct image_writer *w,
					 unsigned number, uint64_t *core_end)
{
	struct writer_region *region;

	pthread_mutex_lock(&w->lock);
	region = w->regions[number];
	*core_end = w->core_end;
	pthread_mutex_unlock(&w->lock);
	return region;
}

/* Writes that make a file longer wait for each other: it gets as long as it has
 * to be now, when the first page of a region comes that was added since. */
static int grow_core(struct image_writer *w, const struct image_region *region,
		     uint64_t core_end)
{
	if (region->pages_offset < w->core_len)
		return 0;
	if (ftruncate(w->core.fd, (off_t)core_end))
		return log_errno(-errno, "%s: cannot size %s: %m", w->dir.path,
				 IMAGE_CORE);
	w->core_len = core_end;
	return 0;
}

int image_writer_put_pages(struct image_writer *w, unsigned region,
			   uint64_t first, uint64_t n, const void *data,
			   struct hold *hold)
{
	uint64_t at = page_find_data(data, 0, n), end, core_end;
	struct writer_region *to;
	int r;

	if (at == n)
		return 0;
	to = find_region(w, region, &core_end);
	r = to->desc.pages_offset ? grow_core(w, &to->desc, core_end) : 0;
	if (r)
		return r;
	for (; at < n; at = page_find_data(data, end, n)) {
		end = page_find_zero(data, at, n);
		r = put_run(w, to, first + at, end - at,
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

static int sync_pages_file(const struct image_writer *w, const char *name,
			   const struct pages_file *file)
{
	int r = INJECT("image-sync") ?: io_sync(file->fd);

	if (r)
		return log_errno(r, "%s: writing %s: %m", w->dir.path, name);
	return 0;
}

int image_writer_sync(struct image_writer *w)
{
	int r;

	do {
		r = image_writer_wait(w);
	} while (r > 0);
	if (r)
		return r;
	if (w->core_end)
		return sync_pages_file(w, IMAGE_CORE, &w->core);
	for (size_t i = 0; !r && i < w->n_regions; i++)
		r = sync_pages_file(w, w->regions[i]->desc.pages_file,
				    &w->regions[i]->own);
	return r;
}
