/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <xxhash.h>

#include "base/inject.h"
#include "base/io.h"
#include "base/log.h"
#include "base/util.h"
#include "image/writer_internal.h"
#include "snapuffd/image-format.h"

/* Enough to keep a fast disk busy with writes of 4 KiB, too. */
#define WRITES_AT_ONCE 64

int image_writer_new(struct image_writer **out, const char *dir,
		     const struct image_writer_options *options)
{
	_cleanup_image_writer_ struct image_writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->dir = PARTIAL_DIR_INIT;
	w->core = PAGES_FILE_INIT;
	pthread_mutex_init(&w->lock, NULL);
	w->options = *options;
	pace_init(&w->pace, options->rate);

	r = partial_dir_create(&w->dir, dir);
	INJECT_INTO(r, "image-dir-done");
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
	for (size_t i = 0; i < w->n_regions; i++)
		writer_region_free(w->regions[i]);
	free(w->regions);
	pages_file_close(&w->core);
	pthread_mutex_destroy(&w->lock);
	for (size_t i = 0; i < w->n_parts; i++)
		free(w->parts[i].name);
	free(w->parts);

	partial_dir_deinit(&w->dir);
	free(w);
	return NULL;
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
	r = INJECT("image-record") ?: io_write_full(fd, data, len);
	if (!r)
		r = INJECT("image-record-sync") ?: io_sync(fd);
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

static int put_frame(struct image_writer *w, const struct image_frame *frame,
		     struct image_frame_sums *sums)
{
	int r;

	assert(!w->core_end == !frame);
	if (!frame)
		return 0;
	*sums = (struct image_frame_sums){
		.head_xxh3 = XXH3_64bits(frame->head, IMAGE_PAGE_SIZE),
		.tail_offset = w->core_end,
		.tail_size = frame->tail_len,
		.tail_xxh3 = XXH3_64bits(frame->tail, frame->tail_len),
	};
	r = io_pwrite_full(w->core.fd, frame->head, IMAGE_PAGE_SIZE, 0);
	INJECT_INTO(r, "core-frame");
	if (!r)
		r = io_pwrite_full(w->core.fd, frame->tail, frame->tail_len,
				   w->core_end);
	if (r)
		return log_errno(r, "%s: writing %s: %m", w->dir.path,
				 IMAGE_CORE);
	return 0;
}

int image_writer_put_process(struct image_writer *w,
			     const struct image_process *process,
			     const struct image_frame *frame)
{
	_cleanup_record_ struct record main = {}, mappings = {}, threads = {};
	struct image_frame_sums sums = {};
	int r;

	w->has_process = true;
	r = put_frame(w, frame, &sums);
	if (!r)
		r = encode_process(&main, process, &sums);
	if (!r)
		r = encode_mappings(&mappings, process);
	if (!r)
		r = encode_threads(&threads, process);
	if (!r)
		r = put_record(w, IMAGE_PROCESS, &main);
	if (!r)
		r = put_record(w, IMAGE_MAPPINGS, &mappings);
	return r ? r : put_record(w, IMAGE_THREADS, &threads);
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
		struct image_region *desc = &w->regions[i]->desc;

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

int image_writer_commit(struct image_writer *w,
			const struct image_inventory *inventory,
			const struct image_stats *stats)
{
	_cleanup_record_ struct record stats_record = {}, record = {};
	int r;

	assert(!w->core_end || w->has_process);
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

int image_writer_commit_core(struct image_writer *w)
{
	int r;

	assert(w->has_process);
	r = image_writer_sync(w);
	if (!r) {
		r = INJECT("core-sync") ?: io_sync(w->core.fd);
		if (r)
			log_errno(r, "%s: writing %s: %m", w->dir.path,
				  IMAGE_CORE);
	}
	return r ? r : partial_dir_commit_file(&w->dir, IMAGE_CORE);
}

int image_writer_take_core(struct image_writer *w)
{
	int r, fd;

	assert(w->has_process);
	do {
		r = image_writer_wait(w);
	} while (r > 0);
	if (r)
		return r;
	fd = openat(w->dir.fd, IMAGE_CORE, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? log_errno(-errno, "%s: %s: %m", w->dir.path, IMAGE_CORE)
		      : fd;
}
