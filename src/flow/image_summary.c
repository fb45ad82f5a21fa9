/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/image_summary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/confined.h"

/* More than any command line, RAM blocks and disks. */
#define SUMMARY_MAX (64 * MIB)

#define NO_TEXT UINT64_MAX

/* One walk over the fields for both directions, so that they agree. */
struct wire {
	FILE *out;	   /* NULL: fields are filled in */
	const uint8_t *in; /* `left` bytes */
	size_t left;
	int error; /* the first one; nothing is done behind it */
};

static void wire_bytes(struct wire *w, void *data, size_t len)
{
	if (w->error)
		return;
	if (w->out) {
		if (fwrite(data, 1, len, w->out) != len)
			w->error = -EIO;
		return;
	}
	if (len > w->left) {
		w->error = -EBADMSG;
		return;
	}
	memcpy(data, w->in, len);
	w->in += len;
	w->left -= len;
}

static void wire_u64(struct wire *w, uint64_t *value)
{
	wire_bytes(w, value, sizeof(*value));
}

static void wire_bool(struct wire *w, bool *value)
{
	uint64_t number = *value;

	wire_u64(w, &number);
	*value = number;
}

static void wire_text(struct wire *w, char **text)
{
	uint64_t len = *text ? strlen(*text) : NO_TEXT;

	wire_u64(w, &len);
	if (w->error || len == NO_TEXT)
		return;
	if (!w->out) {
		if (len > w->left || memchr(w->in, 0, len)) {
			w->error = -EBADMSG;
			return;
		}
		*text = calloc(1, len + 1);
		if (!*text) {
			w->error = -ENOMEM;
			return;
		}
	}
	wire_bytes(w, *text, len);
}

/* One that must be there. */
static void wire_name(struct wire *w, char **text)
{
	wire_text(w, text);
	if (!w->error && !*text)
		w->error = -EBADMSG;
}

/* How many elements follow, and room for them: each begins with a number. */
static void *wire_list(struct wire *w, void *list, size_t *n, size_t size)
{
	uint64_t count = *n;

	wire_u64(w, &count);
	if (w->out)
		return list;
	if (!w->error && count > w->left / sizeof(count))
		w->error = -EBADMSG;
	*n = w->error ? 0 : count;
	list = calloc(*n + 1, size);
	if (!list) {
		*n = 0;
		w->error = -ENOMEM;
	}
	return list;
}

static void wire_region(struct wire *w, struct image_region *region)
{
	wire_name(w, &region->name);
	wire_name(w, &region->pages_file);
	wire_u64(w, &region->length);
	wire_u64(w, &region->pages_offset);
	/* It is opened here, and named to QEMU. */
	if (!w->error && strchr(region->pages_file, '/'))
		w->error = -EBADMSG;
}

static void wire_block(struct wire *w, struct image_ram_block *block,
		       size_t n_regions)
{
	uint64_t region = (uint64_t)(int64_t)block->region;

	wire_name(w, &block->idstr);
	wire_u64(w, &block->offset);
	wire_u64(w, &block->used_length);
	wire_u64(w, &block->max_length);
	wire_u64(w, &block->page_size);
	wire_bool(w, &block->shared);
	wire_bool(w, &block->resizeable);
	wire_bool(w, &block->migratable);
	wire_u64(w, &region);
	if (!w->error && region != UINT64_MAX && region >= n_regions)
		w->error = -EBADMSG;
	block->region = w->error ? -1 : (int)region;
}

static void wire_disk(struct wire *w, struct image_disk *disk)
{
	wire_name(w, &disk->file);
	wire_text(w, &disk->device);
	wire_text(w, &disk->node_name);
	wire_text(w, &disk->format);
	wire_bool(w, &disk->read_only);
	wire_bool(w, &disk->has_stat);
	wire_u64(w, &disk->size);
	wire_bytes(w, &disk->mtime_ns, sizeof(disk->mtime_ns));
	wire_text(w, &disk->overlay);
}

static void wire_dimm(struct wire *w, struct image_memory_device *dimm)
{
	wire_name(w, &dimm->id);
	wire_name(w, &dimm->memdev);
	wire_u64(w, &dimm->address);
	wire_u64(w, &dimm->size);
	wire_bytes(w, &dimm->slot, sizeof(dimm->slot));
	wire_bytes(w, &dimm->node, sizeof(dimm->node));
}

static void wire_texts(struct wire *w, char ***list, size_t *n)
{
	*list = wire_list(w, *list, n, sizeof(**list));
	for (size_t i = 0; i < *n; i++)
		wire_name(w, &(*list)[i]);
}

static void wire_machine(struct wire *w, struct image_machine *machine,
			 size_t n_regions)
{
	wire_name(w, &machine->qemu_version);
	wire_name(w, &machine->machine_class);
	wire_bool(w, &machine->running);
	wire_text(w, &machine->cwd);
	wire_texts(w, &machine->argv, &machine->n_args);
	machine->blocks = wire_list(w, machine->blocks, &machine->n_blocks,
				    sizeof(*machine->blocks));
	for (size_t i = 0; i < machine->n_blocks; i++)
		wire_block(w, &machine->blocks[i], n_regions);
	machine->disks = wire_list(w, machine->disks, &machine->n_disks,
				   sizeof(*machine->disks));
	for (size_t i = 0; i < machine->n_disks; i++)
		wire_disk(w, &machine->disks[i]);
	machine->memory_devices = wire_list(w, machine->memory_devices,
					    &machine->n_memory_devices,
					    sizeof(*machine->memory_devices));
	for (size_t i = 0; i < machine->n_memory_devices; i++)
		wire_dimm(w, &machine->memory_devices[i]);
	wire_text(w, &machine->domain_xml);
}

static void wire_image(struct wire *w, struct image *image)
{
	struct image_inventory *inventory = &image->inventory;
	uint64_t kind = inventory->kind;

	wire_u64(w, &kind);
	if (kind != IMAGE_KIND_QEMU && kind != IMAGE_KIND_PROCESS)
		w->error = -EBADMSG;
	inventory->kind = (enum image_kind)kind;
	wire_texts(w, &inventory->unsafe, &inventory->n_unsafe);
	image->regions = wire_list(w, image->regions, &image->n_regions,
				   sizeof(*image->regions));
	for (size_t i = 0; i < image->n_regions; i++)
		wire_region(w, &image->regions[i]);
	if (inventory->kind == IMAGE_KIND_QEMU)
		wire_machine(w, &image->machine, image->n_regions);
}

int image_summary_parse(const void *data, size_t len, struct image *image)
{
	struct wire w = { .in = data, .left = len };

	wire_image(&w, image);
	return w.error ? w.error : w.left ? -EBADMSG : 0;
}

struct summary {
	const char *dir;
	int fd; /* where it goes */
};

/* In the child. */
static int send_summary(void *data)
{
	struct summary *summary = data;
	_cleanup_image_ struct image *image = NULL;
	_cleanup_fclose_ FILE *out = NULL;
	struct wire w = {};
	int r = image_open(&image, summary->dir);

	if (r)
		return r;
	w.out = out = fdopen(summary->fd, "w");
	if (!out)
		return -errno;
	wire_image(&w, image);
	return w.error ? w.error : fflush(out) ? -errno : 0;
}

/* Reads what there is, whatever it is, and waits for the child. */
static int receive(const char *dir, char **data, size_t *len)
{
	_cleanup_close_ int from = -1, to = -1;
	struct summary summary = { .dir = dir };
	struct confined child;
	int ends[2], r, told;

	if (pipe2(ends, O_CLOEXEC))
		return log_errno(-errno, "pipe: %m");
	from = ends[0];
	to = summary.fd = ends[1];
	r = confined_start(&child, dir, NULL, send_summary, &summary);
	if (r)
		return r;
	close_fd(&to);
	r = io_read_all(from, SUMMARY_MAX, data, len);
	/* One that still writes gets EPIPE. */
	close_fd(&from);
	told = confined_wait(&child);
	return told ? told : r;
}

static int fill_in(struct image *image, const char *dir)
{
	_cleanup_free_ char *data = NULL;
	size_t len;
	int r = receive(dir, &data, &len);

	if (!r)
		r = image_summary_parse(data, len, image);
	if (r == -EBADMSG || r == -EFBIG) {
		log_error("%s: what was read of it makes no sense", dir);
		return RESULT_FAILED;
	}
	if (r)
		return r;
	image->path = strdup(dir);
	image->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (image->dir_fd < 0) {
		log_error("%s: cannot open the image: %m", dir);
		return RESULT_FAILED;
	}
	return image->path ? 0 : -ENOMEM;
}

int image_summary_open(struct image **out, const char *dir)
{
	_cleanup_image_ struct image *image = calloc(1, sizeof(*image));
	int r;

	if (!image)
		return -ENOMEM;
	image->dir_fd = -1;
	r = fill_in(image, dir);
	if (!r)
		*out = steal_ptr(image);
	return r;
}
