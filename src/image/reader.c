/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "snapuffd/image-format.h"

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
		log_errno(r, "%s: cannot read %s: %m", image->path, name);
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
	_cleanup_close_ int fd = -1;
	_cleanup_(free_hash) XXH3_state_t *state = XXH3_createState();
	_cleanup_free_ uint8_t *buf = malloc(MIB);
	uint64_t len = 0;

	if (!state || !buf)
		return -ENOMEM;
	XXH3_64bits_reset(state);

	fd = openat(image->dir_fd, part->name,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	for (;;) {
		ssize_t n = fd < 0 ? -1 : read(fd, buf, MIB);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			log_error("%s: cannot read %s: %m", image->path,
				  part->name);
			return RESULT_FAILED;
		}
		if (!n)
			break;
		len += (uint64_t)n;
		XXH3_64bits_update(state, buf, (size_t)n);
	}
	if (len == part->size && XXH3_64bits_digest(state) == part->xxh3)
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

static int open_regions(struct image *image)
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
			   &image->n_regions);
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

static int open_stats(struct image *image)
{
	_cleanup_record_ struct record record = {};
	int r;

	r = read_record(image, IMAGE_STATS, IMAGE_MAGIC_STATS, &record);
	return r ? r
		 : check_decoded(image, IMAGE_STATS,
				 decode_stats(&record, &image->stats));
}

int image_open(struct image **out, const char *dir)
{
	_cleanup_image_ struct image *image = calloc(1, sizeof(*image));
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

	r = open_inventory(image);
	if (!r)
		r = open_regions(image);
	if (!r && image->inventory.kind == IMAGE_KIND_QEMU)
		r = open_machine(image);
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
	image_inventory_deinit(&image->inventory);
	close_fd(&image->dir_fd);
	free(image->path);
	free(image);
	return NULL;
}

int image_open_pages(const struct image *image,
		     const struct image_region *region)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	fd = openat(image->dir_fd, region->pages_file,
		    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		log_error("%s: cannot open %s: %m", image->path,
			  region->pages_file);
		return -EBADMSG;
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != region->length) {
		log_error(
			"%s: %s is damaged: it is %llu bytes long, the region has %llu",
			image->path, region->pages_file,
			(unsigned long long)st.st_size,
			(unsigned long long)region->length);
		return -EBADMSG;
	}
	return steal_fd(&fd);
}

int image_read_run(const struct image *image, const struct image_region *region,
		   int pages_fd, const struct image_run *run, void *buf)
{
	size_t len = run->n * PAGE_SIZE;
	int r;

	r = io_pread_full(pages_fd, buf, len, run->first * PAGE_SIZE);
	if (r) {
		log_errno(r, "%s: cannot read %s at %#llx: %m", image->path,
			  region->pages_file,
			  (unsigned long long)(run->first * PAGE_SIZE));
		return RESULT_FAILED;
	}
	if (XXH3_64bits(buf, len) == run->xxh3)
		return 0;
	log_error(
		"%s: %s is damaged: the checksum of bytes %#llx to %#llx is wrong",
		image->path, region->pages_file,
		(unsigned long long)(run->first * PAGE_SIZE),
		(unsigned long long)(run->first * PAGE_SIZE + len));
	return RESULT_FAILED;
}

int image_read_device_state(const struct image *image, char **data, size_t *len)
{
	int r = io_read_file(image->dir_fd, IMAGE_DEVICE_STATE, GIB, data, len);

	if (!r)
		return 0;
	log_errno(r, "%s: cannot read %s: %m", image->path, IMAGE_DEVICE_STATE);
	return RESULT_FAILED;
}
