/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/convert.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "qemu/stream.h"
#include "snapuffd/image-format.h"

#define BUF_LEN ((size_t)IMAGE_RUN_MAX_PAGES * IMAGE_PAGE_SIZE)

/*
 * Blocks that a fresh QEMU fills from files (option ROMs, firmware, tables)
 * need their zero pages said; they are small. Guest RAM starts as zeros.
 */
#define EXPLICIT_ZEROS_MAX (64 * MIB)

/* Where converted bytes go. Removed again unless finished. */
struct output {
	const char *path;
	int fd;
	bool remove;
};

static void output_discard(struct output *output)
{
	close_fd(&output->fd);
	if (output->remove)
		unlink(output->path);
}

#define _cleanup_output_ _cleanup_(output_discard)

static int output_open(struct output *output, const char *path)
{
	if (!strcmp(path, "-")) {
		output->path = "stdout";
		output->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	} else {
		output->path = path;
		output->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
				  0600);
		output->remove = output->fd >= 0;
	}
	if (output->fd >= 0)
		return 0;
	if (errno == EEXIST)
		return log_errno(
			-EEXIST,
			"%s: exists already; remove it or choose another file",
			path);
	return log_errno(-errno, "%s: cannot create it: %m", path);
}

static int output_finish(struct output *output)
{
	if (output->remove && fsync(output->fd))
		return log_errno(-errno, "%s: writing: %m", output->path);
	output->remove = false;
	return 0;
}

static int output_write(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct output *output = opaque;
	int r = io_write_full(output->fd, buf, len);

	(void)at; /* in order, so a pipe will do */
	return r ? log_errno(r, "%s: writing: %m", output->path) : 0;
}

/* What is done with each run of a region, and with the zeros between. */
struct page_handler {
	int (*data)(void *opaque, uint64_t first, uint64_t n,
		    const void *pages);
	int (*zeros)(void *opaque, uint64_t first, uint64_t n);
	void *opaque;
};

static int walk_region(const struct image *image,
		       const struct image_region *region, void *buf,
		       const struct page_handler *handler)
{
	_cleanup_close_ int fd = image_open_pages(image, region);
	uint64_t next = 0;
	int r = 0;

	if (fd < 0)
		return RESULT_FAILED;
	for (size_t i = 0; !r && i < region->n_runs; i++) {
		const struct image_run *run = &region->runs[i];

		if (interrupt_pending())
			return -EINTR;
		if (run->first > next)
			r = handler->zeros(handler->opaque, next,
					   run->first - next);
		if (!r)
			r = image_read_run(image, region, fd, run, buf);
		if (!r)
			r = handler->data(handler->opaque, run->first, run->n,
					  buf);
		next = run->first + run->n;
	}
	if (!r && next < region->length / PAGE_SIZE)
		r = handler->zeros(handler->opaque, next,
				   region->length / PAGE_SIZE - next);
	return r;
}

struct stream_block {
	struct stream *stream;
	size_t block;
	bool explicit_zeros;
};

static int stream_data(void *opaque, uint64_t first, uint64_t n,
		       const void *pages)
{
	struct stream_block *to = opaque;

	return stream_pages(to->stream, to->block, first * PAGE_SIZE, pages, n);
}

static int stream_zeros(void *opaque, uint64_t first, uint64_t n)
{
	struct stream_block *to = opaque;

	if (!to->explicit_zeros)
		return 0;
	return stream_zero_pages(to->stream, to->block, first * PAGE_SIZE, n);
}

/* The image's RAM blocks, as the stream's writer wants them. */
static int list_blocks(const struct image *image, struct ram_blocks *blocks)
{
	const struct image_machine *machine = &image->machine;

	blocks->blocks = calloc(machine->n_blocks + 1, sizeof(*blocks->blocks));
	if (!blocks->blocks)
		return -ENOMEM;
	for (size_t i = 0; i < machine->n_blocks; i++) {
		const struct image_ram_block *block = &machine->blocks[i];

		blocks->blocks[blocks->n_blocks++] = (struct ram_block){
			.name = strdup(block->idstr),
			.page_size = block->page_size,
			.offset = block->offset,
			.used_length = block->used_length,
			.max_length = block->max_length,
			.shared = block->shared,
			.resizeable = block->resizeable,
			.migratable = block->migratable,
		};
		if (!blocks->blocks[i].name)
			return -ENOMEM;
	}
	return 0;
}

#define _cleanup_blocks_ _cleanup_(ram_blocks_deinit)

bool convert_is_ram(const struct image *image, size_t block)
{
	return image->machine.blocks[block].region >= 0 &&
	       image->machine.blocks[block].used_length > EXPLICIT_ZEROS_MAX;
}

static int stream_image(const struct image *image, struct stream *stream,
			const struct ram_blocks *blocks, bool with_ram)
{
	static const struct page_handler handler = { stream_data, stream_zeros,
						     NULL };
	_cleanup_free_ uint8_t *buf = malloc(BUF_LEN);
	int r = 0;

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; !r && i < blocks->n_blocks; i++) {
		struct stream_block block = {
			.stream = stream,
			.block = i,
			.explicit_zeros = !convert_is_ram(image, i),
		};
		struct page_handler to_block = handler;
		int region = image->machine.blocks[i].region;

		to_block.opaque = &block;
		if (region >= 0 && (with_ram || !convert_is_ram(image, i)))
			r = walk_region(image, &image->regions[region], buf,
					&to_block);
	}
	return r;
}

int convert_stream(const struct image *image, bool with_ram,
		   const struct savevm_sink *sink)
{
	_cleanup_blocks_ struct ram_blocks blocks = {};
	_cleanup_stream_ struct stream *stream = NULL;
	_cleanup_free_ char *devices = NULL;
	size_t len;
	int r;

	r = image_read_device_state(image, &devices, &len);
	if (!r)
		r = list_blocks(image, &blocks);
	if (!r)
		r = stream_begin(sink, image->machine.machine_class, &blocks,
				 &stream);
	if (!r)
		r = stream_image(image, stream, &blocks, with_ram);
	return r ? r : stream_end(stream, devices, len);
}

static int convert_qemu(const struct image *image, bool with_ram,
			const char *out)
{
	_cleanup_output_ struct output output = { .fd = -1 };
	struct savevm_sink sink = { output_write, &output };
	int r;

	r = output_open(&output, out);
	if (!r)
		r = convert_stream(image, with_ram, &sink);
	return r ? r : output_finish(&output);
}

static int raw_data(void *opaque, uint64_t first, uint64_t n, const void *pages)
{
	struct output *output = opaque;
	int r = io_pwrite_full(output->fd, pages, n * PAGE_SIZE,
			       first * PAGE_SIZE);

	return r ? log_errno(r, "%s: writing: %m", output->path) : 0;
}

static int raw_zeros(void *opaque, uint64_t first, uint64_t n)
{
	(void)opaque;
	(void)first;
	(void)n;
	return 0; /* a hole */
}

/* "pc.ram.pages" -> "pc.ram.raw" */
static char *raw_path(const char *dir, const struct image_region *region)
{
	size_t len = strlen(region->pages_file);
	size_t suffix = strlen(IMAGE_PAGES_SUFFIX);
	char *path;

	if (len > suffix &&
	    !strcmp(region->pages_file + len - suffix, IMAGE_PAGES_SUFFIX))
		len -= suffix;
	if (asprintf(&path, "%s/%.*s.raw", dir, (int)len, region->pages_file) <
	    0)
		return NULL;
	return path;
}

static int convert_region(const struct image *image,
			  const struct image_region *region, const char *dir,
			  void *buf)
{
	_cleanup_free_ char *path = raw_path(dir, region);
	_cleanup_output_ struct output output = { .fd = -1 };
	struct page_handler handler = { raw_data, raw_zeros, &output };
	int r;

	if (!path)
		return -ENOMEM;
	r = output_open(&output, path);
	if (r)
		return r;
	if (ftruncate(output.fd, (off_t)region->length))
		return log_errno(-errno, "%s: cannot size it: %m", path);
	r = walk_region(image, region, buf, &handler);
	return r ? r : output_finish(&output);
}

/* The files that were written before one failed, and the directory. */
static void remove_raw(const struct image *image, const char *dir)
{
	for (size_t i = 0; i < image->n_regions; i++) {
		_cleanup_free_ char *path = raw_path(dir, &image->regions[i]);

		if (path)
			unlink(path);
	}
	rmdir(dir);
}

static int convert_raw(const struct image *image, const char *dir)
{
	_cleanup_free_ uint8_t *buf = malloc(BUF_LEN);
	int r = 0;

	if (!buf)
		return -ENOMEM;
	if (!strcmp(dir, "-")) {
		log_error(
			"convert: raw makes a file for each region and cannot go to stdout; give a directory");
		return RESULT_USAGE;
	}
	if (mkdir(dir, 0700)) {
		if (errno == EEXIST)
			return log_errno(
				-EEXIST,
				"%s: exists already; remove it or choose another directory",
				dir);
		return log_errno(-errno, "%s: cannot create it: %m", dir);
	}
	for (size_t i = 0; !r && i < image->n_regions; i++)
		r = convert_region(image, &image->regions[i], dir, buf);
	if (r)
		remove_raw(image, dir);
	return r;
}

int flow_convert(const struct image *image, enum convert_format format,
		 const char *out)
{
	int r = -EINVAL;

	switch (format) {
	case CONVERT_QEMU:
	case CONVERT_DEVICES:
		if (image->inventory.kind != IMAGE_KIND_QEMU) {
			log_error(
				"%s: is the image of a process, not of a QEMU; it has no migration stream",
				image->path);
			return RESULT_FAILED;
		}
		r = convert_qemu(image, format == CONVERT_QEMU, out);
		break;
	case CONVERT_RAW:
		r = convert_raw(image, out);
		break;
	}
	if (r == -EINTR)
		log_error("%s: interrupted; nothing was kept", out);
	return r;
}
