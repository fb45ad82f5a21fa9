/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/convert.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "flow/confined.h"
#include "flow/convert_formats.h"

static int require_qemu(const struct image *image)
{
	if (image->inventory.kind == IMAGE_KIND_QEMU)
		return 0;
	log_error(
		"%s: is the image of a process, not of a QEMU; it has no migration stream",
		image->path);
	return RESULT_FAILED;
}

static int require_core(const struct image *image)
{
	if (image->frame.tail_offset)
		return 0;
	log_error("%s: is not the image of a process; it has no core",
		  image->path);
	return RESULT_FAILED;
}

int convert_image(const struct image *image, enum convert_format format,
		  const char *out, struct output *output)
{
	int r = -EINVAL;

	switch (format) {
	case CONVERT_QEMU:
	case CONVERT_DEVICES:
		r = require_qemu(image);
		return r ? r
			 : convert_qemu(image, format == CONVERT_QEMU, output);
	case CONVERT_MAPPED_RAM:
		r = require_qemu(image);
		return r ? r : convert_mapped(image, output);
	case CONVERT_LIBVIRT:
		r = require_qemu(image);
		return r ? r : convert_libvirt(image, output);
	case CONVERT_CORE:
		r = require_core(image);
		return r ? r : convert_core(image, !strcmp(out, "-"), output);
	case CONVERT_RAW:
		return convert_raw(image, out);
	}
	return r;
}

struct conversion {
	const char *dir;
	enum convert_format format;
	const char *out;
	char *domain_xml;     /* instead of the image's, unless NULL */
	struct output output; /* not of CONVERT_RAW */
};

/* In the child. */
static int convert(void *data)
{
	struct conversion *this = data;
	_cleanup_image_ struct image *image = NULL;
	int r = image_open(&image, this->dir);

	if (!r && this->domain_xml) {
		free(image->machine.domain_xml);
		image->machine.domain_xml = steal_ptr(this->domain_xml);
	}
	if (!r)
		r = convert_image(image, this->format, this->out,
				  &this->output);
	if (r == -EINTR)
		log_error("%s: interrupted; nothing was kept", this->out);
	return r;
}

static int convert_to_file(struct conversion *this)
{
	int r = output_open(&this->output, this->out);

	if (!r)
		r = confined_run(this->dir, NULL, convert, this);
	if (!r)
		r = output_finish(&this->output);
	output_discard(&this->output);
	return r;
}

/* Nobody else has put anything there. */
static void remove_directory(const char *path)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(dirfd(dir), entry->d_name, 0);
	rmdir(path);
}

static int convert_to_directory(struct conversion *this)
{
	int r;

	if (mkdir(this->out, 0700)) {
		if (errno == EEXIST)
			return log_errno(
				-EEXIST,
				"%s: exists already; remove it or choose another directory",
				this->out);
		return log_errno(-errno, "%s: cannot create it: %m", this->out);
	}
	r = confined_run(this->dir, this->out, convert, this);
	if (r)
		remove_directory(this->out);
	return r;
}

static int check_stream(enum convert_format format)
{
	switch (format) {
	case CONVERT_MAPPED_RAM:
		log_error(
			"convert: mapped-ram is not written in order and cannot go to stdout; give a file");
		return RESULT_USAGE;
	case CONVERT_RAW:
		log_error(
			"convert: raw makes a file for each region and cannot go to stdout; give a directory");
		return RESULT_USAGE;
	default:
		return 0;
	}
}

int flow_convert(const char *dir, enum convert_format format, const char *out)
{
	struct conversion conversion = {
		.dir = dir,
		.format = format,
		.out = out,
		.output = OUTPUT_INIT,
	};
	int r = strcmp(out, "-") ? 0 : check_stream(format);

	if (r)
		return r;
	return format == CONVERT_RAW ? convert_to_directory(&conversion)
				     : convert_to_file(&conversion);
}

/* A text of XML, no matter what it says: libvirt parses it. */
static int read_xml(const char *path, char **xml)
{
	size_t len;
	int r = io_read_file(AT_FDCWD, path, IMAGE_DOMAIN_XML_MAX, xml, &len);

	if (r)
		return log_errno(r, "--domain-xml %s: %m", path);
	if (len == strlen(*xml) && strstr(*xml, "<domain"))
		return 0;
	log_error("--domain-xml %s: is no XML of a domain", path);
	return RESULT_USAGE;
}

int flow_convert_libvirt(const char *dir, const char *xml_file, const char *out)
{
	_cleanup_free_ char *xml = NULL;
	struct conversion conversion = {
		.dir = dir,
		.format = CONVERT_LIBVIRT,
		.out = out,
		.output = OUTPUT_INIT,
	};
	int r = read_xml(xml_file, &xml);

	conversion.domain_xml = xml;
	return r ? r : convert_to_file(&conversion);
}
