/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * From an image directory to what other programs load. What is written is
 * checked on the way; an output that could not be finished is removed. The
 * image is read by a confined child (flow/confined.h), which can write to the
 * output and to nothing else.
 */

#include "image/reader.h"
#include "qemu/savevm.h"

enum convert_format {
	CONVERT_QEMU,	    /* a classic migration stream, for -incoming */
	CONVERT_DEVICES,    /* the same without RAM, for who maps it */
	CONVERT_MAPPED_RAM, /* a seekable file, for QEMU 9.0 and later */
	CONVERT_LIBVIRT,    /* a save image, for virsh restore */
	CONVERT_CORE,	    /* the ELF core of a process */
	CONVERT_RAW,	    /* a directory with one sparse file a region */
};

/*
 * `dir` is the image. `out` is a path that does not exist yet; "-" streams to
 * stdout where the format can. 0, RESULT_FAILED, RESULT_USAGE for a format that
 * cannot stream, or -errno; logged. The process must have one thread.
 */
int flow_convert(const char *dir, enum convert_format format, const char *out);

/* The same to CONVERT_LIBVIRT, with the domain's XML from the file `xml_file`
 * instead of the image's. */
int flow_convert_libvirt(const char *dir, const char *xml_file,
			 const char *out);

/* Streams the image of a QEMU; without the pages of imagewalk_is_ram() unless
 * `with_ram`. 0; RESULT_FAILED, logged; or what the sink returned. */
int convert_stream(const struct image *image, bool with_ram,
		   const struct savevm_sink *sink);
