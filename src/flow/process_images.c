/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/process_images.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/inject.h"
#include "base/log.h"
#include "config.h"
#include "elfcore/elfcore.h"
#include "flow/output.h"
#include "snapuffd/image-format.h"

#define STREAM_BYTES MIB

static int make_writer(struct subject *s, const char *dir,
		       const struct image_writer_options *options)
{
	int r = image_writer_new(&s->writer, dir, options);

	return r ? r : image_writer_use_core(s->writer);
}

static int begin_tree(struct process_images *images)
{
	const struct dump_options *options = images->options;
	int r = partial_dir_create(&images->dir, options->out);
	size_t len = strlen(options->out);

	while (len && options->out[len - 1] == '/')
		len--;

	for (size_t i = 0; !r && i < images->n_subjects; i++) {
		struct subject *s = &images->subjects[i];
		_cleanup_free_ char *dir = NULL;

		if (asprintf(&dir, "%.*s.partial/%d", (int)len, options->out,
			     s->target.pid) < 0)
			return -ENOMEM;
		r = make_writer(s, dir, &options->writer);
	}
	return r;
}

/* A stream has an order, and pages come as the process writes to them: so they
 * go to a file first. */
static int begin_spool(struct process_images *images)
{
	const char *tmp = getenv("TMPDIR");
	_cleanup_free_ char *dir = NULL;

	if (!tmp || *tmp != '/')
		tmp = "/var/tmp";
	if (asprintf(&images->spool, "%s/snapuffd-XXXXXX", tmp) < 0) {
		images->spool = NULL;
		return -ENOMEM;
	}
	if (!mkdtemp(images->spool)) {
		int r = log_errno(-errno, "%s: %m (TMPDIR names another place)",
				  images->spool);

		free_ptr(&images->spool);
		return r;
	}
	if (asprintf(&dir, "%s/core", images->spool) < 0)
		return -ENOMEM;
	return make_writer(&images->subjects[0], dir, &images->options->writer);
}

int process_images_begin(struct process_images *images,
			 const struct dump_options *options,
			 struct subject *subjects, size_t n_subjects)
{
	images->options = options;
	images->subjects = subjects;
	images->n_subjects = n_subjects;
	if (dump_makes_many(options))
		return begin_tree(images);
	if (!strcmp(options->out, "-"))
		return begin_spool(images);
	return make_writer(&subjects[0], options->out, &options->writer);
}

/* What is not committed. */
static void discard(struct process_images *images)
{
	for (size_t i = 0; i < images->n_subjects; i++)
		images->subjects[i].writer =
			image_writer_free(images->subjects[i].writer);
	partial_dir_deinit(&images->dir);
	if (images->spool && rmdir(images->spool))
		log_warning("%s: %m", images->spool);
	free_ptr(&images->spool);
}

void process_images_deinit(struct process_images *images)
{
	discard(images);
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

static int put_process(struct subject *s)
{
	_cleanup_(image_frame_deinit) struct image_frame frame = {};
	_cleanup_free_ struct image_region *regions = NULL;
	size_t n;
	int r;

	r = image_writer_list_regions(s->writer, &regions, &n);
	INJECT_INTO(r, "core-build");
	if (!r)
		r = elfcore_build(&s->process, regions, n,
				  image_writer_tail_offset(s->writer), &frame);
	if (r)
		return log_errno(r, "pid %d: making an ELF core: %m",
				 s->target.pid);
	return image_writer_put_process(s->writer, &s->process, &frame);
}

/* To stdout, all of it; the file is gone before. */
static int stream_core(struct process_images *images)
{
	_cleanup_close_ int fd =
		image_writer_take_core(images->subjects[0].writer);
	_cleanup_free_ uint8_t *buf = malloc(STREAM_BYTES);
	_cleanup_output_ struct output output = OUTPUT_INIT;
	int r;

	if (fd < 0)
		return fd;
	if (!buf)
		return -ENOMEM;
	discard(images);
	r = output_open(&output, "-");
	while (!r) {
		ssize_t n = read(fd, buf, STREAM_BYTES);

		if (n < 0)
			return log_errno(-errno, "reading the core: %m");
		if (!n)
			return output_finish(&output);
		r = output_append(&output, 0, buf, (size_t)n);
	}
	return r;
}

static int commit_one(struct process_images *images, struct subject *s,
		      const struct image_inventory *inventory,
		      const struct image_stats *stats)
{
	struct image_inventory own = *inventory;
	int r = put_process(s);

	if (r)
		return r;
	if (images->spool)
		return stream_core(images);
	if (images->options->format == DUMP_CORE)
		return image_writer_commit_core(s->writer);
	own.version = IMAGE_VERSION;
	own.kind = IMAGE_KIND_PROCESS;
	own.complete = true;
	own.tool_version = SNAPUFFD_VERSION;
	own.pid = s->target.pid;
	return image_writer_commit(s->writer, &own, stats);
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
		r = commit_one(images, &images->subjects[i], inventory, stats);
	if (!r && dump_makes_many(images->options))
		r = partial_dir_commit(&images->dir);
	return r;
}
