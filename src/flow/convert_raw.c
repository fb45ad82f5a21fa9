/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/convert_formats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/imagewalk.h"
#include "flow/output.h"
#include "snapuffd/image-format.h"

static int raw_data(void *opaque, const struct imagewalk_pages *pages)
{
	return output_put_pages(opaque, pages->first * PAGE_SIZE, pages);
}

/* "pc.ram.pages" -> "pc.ram.raw"; "7f0000000000-7f0000021000.raw" where the
 * file is not the region's alone. */
static char *raw_path(const char *dir, const struct image_region *region)
{
	size_t len = strlen(region->pages_file);
	size_t suffix = strlen(IMAGE_PAGES_SUFFIX);
	char *path;

	if (region->pages_offset) {
		if (asprintf(&path, "%s/%" PRIx64 "-%" PRIx64 ".raw", dir,
			     region->address,
			     region->address + region->length) < 0)
			return NULL;
		return path;
	}
	if (len > suffix &&
	    !strcmp(region->pages_file + len - suffix, IMAGE_PAGES_SUFFIX))
		len -= suffix;
	if (asprintf(&path, "%s/%.*s.raw", dir, (int)len, region->pages_file) <
	    0)
		return NULL;
	return path;
}

static int convert_region(const struct image *image,
			  const struct image_region *region, const char *dir)
{
	_cleanup_free_ char *path = raw_path(dir, region);
	_cleanup_output_ struct output output = OUTPUT_INIT;
	struct imagewalk walk = { raw_data, NULL, &output };
	int r;

	if (!path)
		return -ENOMEM;
	r = output_open(&output, path);
	if (r)
		return r;
	/* Zeros are holes, also the last ones. */
	if (ftruncate(output.fd, (off_t)region->length))
		return log_errno(-errno, "%s: cannot size it: %m", path);
	r = imagewalk_region(image, region, &walk);
	return r ? r : output_finish(&output);
}

int convert_raw(const struct image *image, const char *dir)
{
	int r = 0;

	for (size_t i = 0; !r && i < image->n_regions; i++)
		r = convert_region(image, &image->regions[i], dir);
	return r;
}
