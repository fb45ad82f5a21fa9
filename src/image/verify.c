/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/reader.h"

#include <errno.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "snapuffd/image-format.h"

#define BUF_LEN ((size_t)IMAGE_RUN_MAX_PAGES * IMAGE_PAGE_SIZE)

/* Whether bytes [offset, end) of a region are zero; holes cost nothing. */
static int verify_zero(const struct image *image,
		       const struct image_region *region, int fd, uint8_t *buf,
		       uint64_t offset, uint64_t end)
{
	offset += region->pages_offset;
	end += region->pages_offset;
	while (offset < end) {
		off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
		size_t len;
		int r;

		if (data < 0 && errno == ENXIO)
			return 0;
		if (data > (off_t)offset)
			offset = (uint64_t)data;
		if (offset >= end)
			return 0;
		len = (size_t)min_u64(end - offset, BUF_LEN);
		r = io_pread_full(fd, buf, len, offset);
		if (r) {
			log_errno(r, "%s: cannot read %s: %m", image->path,
				  region->pages_file);
			return RESULT_FAILED;
		}
		if (buf[0] || memcmp(buf, buf + 1, len - 1)) {
			log_error(
				"%s: %s is damaged: data at %#llx to %#llx, where the region was zero",
				image->path, region->pages_file,
				(unsigned long long)offset,
				(unsigned long long)(offset + len));
			return RESULT_FAILED;
		}
		offset += len;
	}
	return 0;
}

static int verify_region(const struct image *image,
			 const struct image_region *region, uint8_t *buf)
{
	_cleanup_close_ int fd = image_open_pages(image, region);
	uint64_t checked = 0;
	int r;

	if (fd < 0)
		return RESULT_FAILED;
	for (size_t i = 0; i < region->n_runs; i++) {
		const struct image_run *run = &region->runs[i];

		r = verify_zero(image, region, fd, buf, checked,
				run->first * PAGE_SIZE);
		if (!r)
			r = image_read_run(image, region, fd, run, buf);
		if (r)
			return r;
		checked = (run->first + run->n) * PAGE_SIZE;
	}
	return verify_zero(image, region, fd, buf, checked, region->length);
}

static int verify_frame(const struct image *image)
{
	_cleanup_(image_frame_deinit) struct image_frame frame = {};
	_cleanup_close_ int fd = image_open_core(image, &frame);

	return fd >= 0 ? 0 : fd == -ENOMEM ? fd : RESULT_FAILED;
}

int image_verify(const struct image *image)
{
	_cleanup_free_ uint8_t *buf = malloc(BUF_LEN);
	int r = 0;

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; !r && i < image->n_regions; i++)
		r = verify_region(image, &image->regions[i], buf);
	if (!r && image->frame.tail_offset)
		r = verify_frame(image);
	return r;
}
