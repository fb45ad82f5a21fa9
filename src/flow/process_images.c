/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/process_images.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "base/cleanup.h"
#include "snapuffd/image-format.h"

static int make_writer(struct subject *s, const char *dir,
		       const struct image_writer_options *options)
{
	int r = image_writer_new(&s->writer, dir, options);

	return r ? r : image_writer_use_core(s->writer);
}

int process_images_begin(struct process_images *images,
			 const struct dump_options *options,
			 struct subject *subjects, size_t n_subjects)
{
	int r = 0;

	*images = (struct process_images){
		.options = options,
		.subjects = subjects,
		.n_subjects = n_subjects,
		.dir = PARTIAL_DIR_INIT,
	};
	if (!options->tree)
		return make_writer(&subjects[0], options->out,
				   &options->writer);
	r = partial_dir_create(&images->dir, options->out);
	for (size_t i = 0; !r && i < n_subjects; i++) {
		_cleanup_free_ char *dir = NULL;

		if (asprintf(&dir, "%s.partial/%d", options->out,
			     subjects[i].target.pid) < 0)
			return -ENOMEM;
		r = make_writer(&subjects[i], dir, &options->writer);
	}
	return r;
}

void process_images_deinit(struct process_images *images)
{
	for (size_t i = 0; i < images->n_subjects; i++)
		images->subjects[i].writer =
			image_writer_free(images->subjects[i].writer);
	partial_dir_deinit(&images->dir);
}

void process_images_set_capture(struct process_images *images,
				struct capture *capture)
{
	images->capture = capture;
}

static int put(void *opaque, unsigned region, uint64_t first_page,
	       uint64_t n_pages, const void *data, struct hold *hold)
{
	struct process_images *images = opaque;
	unsigned space;
	struct range range =
		capture_region_range(images->capture, region, &space);

	range.start += first_page * PAGE_SIZE;
	range.end = range.start + n_pages * PAGE_SIZE;
	return subject_put(&images->subjects[space], range, data, hold);
}

static int wait(void *opaque)
{
	struct process_images *images = opaque;
	int r = 0;

	for (size_t i = 0; !r && i < images->n_subjects; i++)
		r = image_writer_wait(images->subjects[i].writer);
	return r;
}

static void drain(void *opaque)
{
	struct process_images *images = opaque;

	for (size_t i = 0; i < images->n_subjects; i++)
		image_writer_drain(images->subjects[i].writer);
}

struct capture_sink process_images_sink(struct process_images *images)
{
	return (struct capture_sink){
		.put = put, .wait = wait, .drain = drain, .opaque = images
	};
}

static int commit_one(struct subject *s,
		      const struct image_inventory *inventory,
		      const struct image_stats *stats, bool as_core)
{
	struct image_inventory own = *inventory;
	_cleanup_free_ struct image_region *regions = NULL;
	struct image_frame frame = {};
	size_t n;
	int r;

	own.version = IMAGE_VERSION;
	own.kind = IMAGE_KIND_PROCESS;
	own.complete = true;
	own.tool_version = SNAPUFFD_VERSION;
	own.pid = s->target.pid;
	r = image_writer_list_regions(s->writer, &regions, &n);
	if (!r) {
		frame.head = calloc(1, 4096);
		frame.tail = calloc(1, 64);
		frame.tail_len = 64;
	}
	if (!r)
		r = image_writer_put_process(s->writer, &s->process, &frame);
	image_frame_deinit(&frame);
	(void)as_core;
	return r ? r : image_writer_commit(s->writer, &own, stats);
}

/* Of all that the images hold, captured by the engine or not. */
static int count_pages(struct process_images *images, struct image_stats *stats)
{
	stats->pages_total = 0;
	for (size_t i = 0; i < images->n_subjects; i++) {
		_cleanup_free_ struct image_region *regions = NULL;
		size_t n;
		int r = image_writer_list_regions(images->subjects[i].writer,
						  &regions, &n);

		if (r)
			return r;
		for (size_t k = 0; k < n; k++)
			stats->pages_total += regions[k].length / PAGE_SIZE;
	}
	return 0;
}

int process_images_commit(struct process_images *images,
			  const struct image_inventory *inventory,
			  uint64_t started_ns, struct image_stats *stats)
{
	int r = 0;

	/* The pages are most of the work; the image records its duration. */
	for (size_t i = 0; !r && i < images->n_subjects; i++) {
		r = image_writer_sync(images->subjects[i].writer);
		stats->pages_data +=
			image_writer_data_pages(images->subjects[i].writer);
	}
	if (!r)
		r = count_pages(images, stats);
	if (r)
		return r;
	stats->bytes_written = stats->pages_data * PAGE_SIZE;
	stats->pages_zero = stats->pages_total - stats->pages_data;
	stats->duration_ns = now_ns() - started_ns;
	for (size_t i = 0; !r && i < images->n_subjects; i++)
		r = commit_one(&images->subjects[i], inventory, stats,
			       images->options->format == DUMP_CORE);
	if (!r && images->options->tree)
		r = partial_dir_commit(&images->dir);
	return r;
}
