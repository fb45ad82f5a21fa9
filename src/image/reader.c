/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "snapuffd/image-format.h"

static void log_unreadable(const struct image *image, const char *name, int r)
{
	if (r == -EMEDIUMTYPE)
		log_error(
			"%s: %s is no regular file: not an image of snapuffd, or tampered with",
			image->path, name);
	else
		log_errno(r, "%s: cannot read %s: %m", image->path, name);
}

static int read_record(const struct image *image, const char *name,
		       uint32_t magic, struct record *record)
{
	int r = record_read(record, image->dir_fd, name, magic);

	if (r == -EBADMSG)
		log_error(
			"%s: %s has a wrong magic: not an image of snapuffd, or damaged",
			image->path, name);
	else if (r == -ENOENT)
		log_error(
			"%s: %s is missing: not an image of snapuffd, or damaged",
			image->path, name);
	else if (r)
		log_unreadable(image, name, r);
	return r ? RESULT_FAILED : 0;
}

/* The verdict on a record that was decoded: 0, or logged. */
static int check_decoded(const struct image *image, const char *name, int r)
{
	if (!r || r == -ENOMEM)
		return r;
	log_error("%s: %s is damaged: a record is truncated or out of bounds",
		  image->path, name);
	return RESULT_FAILED;
}

static void free_hash(XXH3_state_t **state)
{
	XXH3_freeState(*state);
}

/* Whether a part is as long as, and hashes to, what the inventory says. */
static int check_part(const struct image *image, const struct image_part *part)
{
	_cleanup_close_ int fd = io_open_regular(image->dir_fd, part->name);
	_cleanup_(free_hash) XXH3_state_t *state = XXH3_createState();
	_cleanup_free_ uint8_t *buf = malloc(MIB);
	uint64_t len = 0;
	struct stat st;

	if (!state || !buf)
		return -ENOMEM;
	if (fd < 0 || fstat(fd, &st)) {
		log_unreadable(image, part->name, fd < 0 ? fd : -errno);
		return RESULT_FAILED;
	}
	XXH3_64bits_reset(state);
	/* A sparse file may be longer than anyone can wait for. */
	while ((uint64_t)st.st_size == part->size && len <= part->size) {
		ssize_t n = read(fd, buf, MIB);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			log_unreadable(image, part->name, -errno);
			return RESULT_FAILED;
		}
		if (!n)
			break;
		len += (uint64_t)n;
		XXH3_64bits_update(state, buf, (size_t)n);
	}
	if ((uint64_t)st.st_size == part->size && len == part->size &&
	    XXH3_64bits_digest(state) == part->xxh3)
		return 0;
	log_error("%s: %s is damaged: its checksum or length is wrong",
		  image->path, part->name);
	return RESULT_FAILED;
}

static const struct image_part *find_part(const struct image *image,
					  const char *name)
{
	for (size_t i = 0; i < image->n_parts; i++)
		if (!strcmp(image->parts[i].name, name))
			return &image->parts[i];
	return NULL;
}

static int open_inventory(struct image *image)
{
	static const char *const required[] = { IMAGE_REGIONS, IMAGE_PAGEMAP,
						IMAGE_STATS };
	_cleanup_record_ struct record record = {};
	int r;

	r = read_record(image, IMAGE_INVENTORY, IMAGE_MAGIC_INVENTORY, &record);
	if (r)
		return r;
	r = decode_inventory(&record, &image->inventory, &image->parts,
			     &image->n_parts);
	if (r == -EPROTONOSUPPORT) {
		log_error(
			"%s: image version %u is newer than this snapuffd reads (%u); use a newer snapuffd",
			image->path, image->inventory.version, IMAGE_VERSION);
		return RESULT_FAILED;
	}
	r = check_decoded(image, IMAGE_INVENTORY, r);
	if (r)
		return r;
	if (!image->inventory.complete) {
		log_error("%s: the image is not complete", image->path);
		return RESULT_FAILED;
	}

	for (size_t i = 0; i < ARRAY_SIZE(required); i++)
		if (!find_part(image, required[i]))
			return check_decoded(image, IMAGE_INVENTORY, -EBADMSG);
	for (size_t i = 0; !r && i < image->n_parts; i++)
		r = check_part(image, &image->parts[i]);
	return r;
}

static int open_regions(struct image *image, uint64_t *core_end)
{
	_cleanup_record_ struct record regions = {}, pagemap = {};
	int r;

	r = read_record(image, IMAGE_REGIONS, IMAGE_MAGIC_REGIONS, &regions);
	if (!r)
		r = read_record(image, IMAGE_PAGEMAP, IMAGE_MAGIC_PAGEMAP,
				&pagemap);
	if (r)
		return r;
	r = decode_regions(&regions, &pagemap, &image->regions,
			   &image->n_regions, core_end);
	return check_decoded(image, IMAGE_REGIONS, r);
}

static int open_machine(struct image *image)
{
	_cleanup_record_ struct record record = {};
	int r;

	if (!find_part(image, IMAGE_MACHINE) ||
	    !find_part(image, IMAGE_DEVICE_STATE))
		return check_decoded(image, IMAGE_INVENTORY, -EBADMSG);
	r = read_record(image, IMAGE_MACHINE, IMAGE_MAGIC_MACHINE, &record);
	if (r)
		return r;
	r = decode_machine(&record, image->n_regions, &image->machine);
	for (size_t i = 0; !r && i < image->machine.n_blocks; i++) {
		const struct image_ram_block *b = &image->machine.blocks[i];

		if (b->region >= 0 &&
		    image->regions[b->region].length != b->used_length)
			r = -EBADMSG;
	}
	return check_decoded(image, IMAGE_MACHINE, r);
}

static int open_process(struct image *image)
{
	_cleanup_record_ struct record process = {}, mappings = {},
				       threads = {};
	int r;

	if (!find_part(image, IMAGE_PROCESS) ||
	    !find_part(image, IMAGE_MAPPINGS) ||
	    !find_part(image, IMAGE_THREADS))
		return check_decoded(image, IMAGE_INVENTORY, -EBADMSG);
	r = read_record(image, IMAGE_PROCESS, IMAGE_MAGIC_PROCESS, &process);
	if (!r)
		r = read_record(image, IMAGE_MAPPINGS, IMAGE_MAGIC_MAPPINGS,
				&mappings);
	if (!r)
		r = read_record(image, IMAGE_THREADS, IMAGE_MAGIC_THREADS,
				&threads);
	if (!r)
		r = check_decoded(image, IMAGE_PROCESS,
				  decode_process(&process, &image->process,
						 &image->frame));
	if (!r)
		r = check_decoded(image, IMAGE_MAPPINGS,
				  decode_mappings(&mappings, &image->process));
	if (!r)
		r = check_decoded(image, IMAGE_THREADS,
				  decode_threads(&threads, &image->process));
	return r;
}

/* Nothing in memory.core is in neither a region nor the frame. */
static int check_core(const struct image *image, uint64_t core_end)
{
	uint64_t end = image->frame.tail_offset;

	if (end ? end == core_end : core_end == IMAGE_PAGE_SIZE)
		return 0;
	return check_decoded(image, IMAGE_REGIONS, -EBADMSG);
}

static int open_stats(struct image *image)
{
	_cleanup_record_ struct record record = {};
	int r;

	r = read_record(image, IMAGE_STATS, IMAGE_MAGIC_STATS, &record);
	return r ? r
		 : check_decoded(image, IMAGE_STATS,
				 decode_stats(&record, &image->stats));
}

/* Whether it holds images of processes, as --tree makes them. */
static bool is_tree(const struct image *image)
{
	_cleanup_close_ int fd =
		openat(image->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir)
		return false;
	steal_fd(&fd);
	while ((entry = readdir(dir))) {
		char name[NAME_MAX + sizeof("/" IMAGE_INVENTORY)];

		if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
			continue;
		snprintf(name, sizeof(name), "%s/%s", entry->d_name,
			 IMAGE_INVENTORY);
		if (!faccessat(image->dir_fd, name, F_OK, 0))
			return true;
	}
	return false;
}

static int refuse_tree(const struct image *image)
{
	if (!faccessat(image->dir_fd, IMAGE_INVENTORY, F_OK, 0) ||
	    !is_tree(image))
		return 0;
	log_error(
		"%s: holds the images of several processes, each named by its pid: name one of them",
		image->path);
	return RESULT_FAILED;
}

int image_open(struct image **out, const char *dir)
{
	_cleanup_image_ struct image *image = calloc(1, sizeof(*image));
	uint64_t core_end;
	int r;

	if (!image)
		return -ENOMEM;
	image->dir_fd = -1;
	image->path = strdup(dir);
	if (!image->path)
		return -ENOMEM;

	image->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (image->dir_fd < 0) {
		log_error("%s: cannot open the image: %m", dir);
		return RESULT_FAILED;
	}

	r = refuse_tree(image);
	if (!r)
		r = open_inventory(image);
	if (!r)
		r = open_regions(image, &core_end);
	if (!r && image->inventory.kind == IMAGE_KIND_QEMU)
		r = open_machine(image);
	else if (!r)
		r = open_process(image);
	if (!r)
		r = check_core(image, core_end);
	if (!r)
		r = open_stats(image);
	if (r)
		return r;

	*out = steal_ptr(image);
	return 0;
}

struct image *image_close(struct image *image)
{
	if (!image)
		return NULL;
	for (size_t i = 0; i < image->n_regions; i++)
		image_region_deinit(&image->regions[i]);
	free(image->regions);
	for (size_t i = 0; i < image->n_parts; i++)
		free(image->parts[i].name);
	free(image->parts);
	image_machine_deinit(&image->machine);
	image_process_deinit(&image->process);
	image_inventory_deinit(&image->inventory);
	close_fd(&image->dir_fd);
	free(image->path);
	free(image);
	return NULL;
}

static int open_pages_file(const struct image *image, const char *name,
			   uint64_t len)
{
	_cleanup_close_ int fd = io_open_regular(image->dir_fd, name);
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		log_unreadable(image, name, fd < 0 ? fd : -errno);
		return -EBADMSG;
	}
	if ((uint64_t)st.st_size != len) {
		log_error(
			"%s: %s is damaged: it is %llu bytes long, and not %llu",
			image->path, name, (unsigned long long)st.st_size,
			(unsigned long long)len);
		return -EBADMSG;
	}
	return steal_fd(&fd);
}

static int open_core(const struct image *image)
{
	return open_pages_file(image, IMAGE_CORE,
			       image->frame.tail_offset +
				       image->frame.tail_size);
}

int image_open_pages(const struct image *image,
		     const struct image_region *region)
{
	if (region->pages_offset)
		return open_core(image);
	return open_pages_file(image, region->pages_file, region->length);
}

/* Reads bytes that have one checksum. */
static int read_checked(const struct image *image, const char *name, int fd,
			void *buf, size_t len, uint64_t offset, uint64_t xxh3)
{
	int r = io_pread_full(fd, buf, len, offset);

	if (r) {
		log_errno(r, "%s: cannot read %s at %#llx: %m", image->path,
			  name, (unsigned long long)offset);
		return RESULT_FAILED;
	}
	if (XXH3_64bits(buf, len) == xxh3)
		return 0;
	log_error(
		"%s: %s is damaged: the checksum of bytes %#llx to %#llx is wrong",
		image->path, name, (unsigned long long)offset,
		(unsigned long long)(offset + len));
	return RESULT_FAILED;
}

int image_read_run(const struct image *image, const struct image_region *region,
		   int pages_fd, const struct image_run *run, void *buf)
{
	return read_checked(
		image, region->pages_file, pages_fd, buf, run->n * PAGE_SIZE,
		region->pages_offset + run->first * PAGE_SIZE, run->xxh3);
}

int image_open_core(const struct image *image, struct image_frame *frame)
{
	const struct image_frame_sums *sums = &image->frame;
	_cleanup_close_ int fd = open_core(image);
	int r;

	*frame = (struct image_frame){};
	if (fd < 0)
		return fd;
	frame->head = malloc(IMAGE_PAGE_SIZE);
	frame->tail = malloc(sums->tail_size);
	frame->tail_len = sums->tail_size;
	if (!frame->head || !frame->tail)
		return -ENOMEM;
	r = read_checked(image, IMAGE_CORE, fd, frame->head, IMAGE_PAGE_SIZE, 0,
			 sums->head_xxh3);
	if (!r)
		r = read_checked(image, IMAGE_CORE, fd, frame->tail,
				 frame->tail_len, sums->tail_offset,
				 sums->tail_xxh3);
	return r ? -EBADMSG : steal_fd(&fd);
}

int image_read_device_state(const struct image *image, char **data, size_t *len)
{
	int r = io_read_regular(image->dir_fd, IMAGE_DEVICE_STATE, GIB, data,
				len);

	if (!r)
		return 0;
	log_unreadable(image, IMAGE_DEVICE_STATE, r);
	return RESULT_FAILED;
}
