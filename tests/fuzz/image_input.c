/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image_input.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/util.h"
#include "image/codec_internal.h"

void image_input_record(struct record *record, struct fuzz_part part)
{
	*record = (struct record){
		.data = malloc(part.len + 1),
		.len = part.len,
		.size = part.len + 1,
	};
	fuzz_require(record->data);
	if (part.len)
		memcpy(record->data, part.data, part.len);
}

static void append(struct record *record, const void *message)
{
	fuzz_require(!record_append(record, message));
}

/* Inventory and seal, as the writer makes them. */
static void put_inventory(struct record *record,
			  const Snapuffd__Inventory *message)
{
	Snapuffd__Seal seal = SNAPUFFD__SEAL__INIT;

	record_deinit(record);
	append(record, message);
	seal.xxh3 = XXH3_64bits(record->data + sizeof(uint32_t),
				record->len - sizeof(uint32_t));
	append(record, &seal);
}

void image_input_seal(struct record *record)
{
	_cleanup_message_ Snapuffd__Inventory *message =
		NEXT(record, snapuffd__inventory__descriptor);

	record->pos = 0;
	if (message)
		put_inventory(record, message);
}

/* A file of fuzz_dir(), if there is one. */
static bool read_file(const char *name, char **data, size_t *len)
{
	return !io_read_file(fuzz_dir(), name, 64 * MIB, data, len);
}

static Snapuffd__Part *make_part(const char *name)
{
	_cleanup_free_ char *data = NULL;
	Snapuffd__Part *part;
	size_t len;

	if (!read_file(name, &data, &len))
		return NULL;
	part = malloc(sizeof(*part));
	fuzz_require(part);
	snapuffd__part__init(part);
	part->name = strdup(name);
	part->size = len;
	part->xxh3 = XXH3_64bits(data, len);
	return part;
}

void image_input_name_parts(struct record *record, const char *const *names,
			    size_t n)
{
	_cleanup_message_ Snapuffd__Inventory *message =
		NEXT(record, snapuffd__inventory__descriptor);

	record->pos = 0;
	if (!message)
		return;
	for (size_t i = 0; i < message->n_parts; i++)
		snapuffd__part__free_unpacked(message->parts[i], NULL);
	free(message->parts);
	message->parts = calloc(n + 1, sizeof(*message->parts));
	message->n_parts = 0;
	fuzz_require(message->parts);
	for (size_t i = 0; i < n; i++) {
		message->parts[message->n_parts] = make_part(names[i]);
		message->n_parts += !!message->parts[message->n_parts];
	}
	put_inventory(record, message);
}

static void sum_runs(Snapuffd__Runs *message, const uint8_t *bytes, size_t len)
{
	uint64_t n_pages = len / IMAGE_PAGE_SIZE;

	for (size_t i = 0;
	     i < message->n_first && i < message->n_n && i < message->n_xxh3;
	     i++)
		if (message->first[i] <= n_pages &&
		    message->n[i] <= n_pages - message->first[i])
			message->xxh3[i] = XXH3_64bits(
				bytes + message->first[i] * IMAGE_PAGE_SIZE,
				message->n[i] * IMAGE_PAGE_SIZE);
}

void image_input_sum_runs(struct record *pagemap, const char *name,
			  uint64_t skip)
{
	_cleanup_free_ char *data = NULL;
	struct record summed = {};
	size_t len;

	if (!read_file(name, &data, &len) || len < skip)
		return;
	while (!record_at_end(pagemap)) {
		_cleanup_message_ Snapuffd__Runs *message =
			NEXT(pagemap, snapuffd__runs__descriptor);

		if (!message)
			break;
		sum_runs(message, (uint8_t *)data + skip, len - skip);
		append(&summed, message);
	}
	record_deinit(pagemap);
	*pagemap = summed;
}

void image_input_sum_frame(struct record *process)
{
	_cleanup_message_ Snapuffd__Process *message =
		NEXT(process, snapuffd__process__descriptor);
	_cleanup_free_ char *data = NULL;
	Snapuffd__Frame *frame = message ? message->core : NULL;
	size_t len;

	process->pos = 0;
	if (!frame || !read_file(IMAGE_CORE, &data, &len) ||
	    len < IMAGE_PAGE_SIZE)
		return;
	frame->head_xxh3 = XXH3_64bits(data, IMAGE_PAGE_SIZE);
	if (frame->tail_offset <= len &&
	    frame->tail_size <= len - frame->tail_offset)
		frame->tail_xxh3 = XXH3_64bits(data + frame->tail_offset,
					       frame->tail_size);
	record_deinit(process);
	append(process, message);
}

void image_input_put(const char *name, uint32_t magic,
		     const struct record *record)
{
	int fd = openat(fuzz_dir(), name,
			O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	magic = htole32(magic);
	fuzz_require(fd >= 0);
	fuzz_require(!io_write_full(fd, &magic, sizeof(magic)) &&
		     !io_write_full(fd, record->data, record->len));
	close(fd);
}
