/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The main job: a consistent snapshot of a running VM.
 */

#include <stdint.h>
#include <sys/types.h>

#include "capture/capture.h"
#include "flow/storage.h"
#include "image/image.h"
#include "image/writer.h"

enum dump_format {
	DUMP_IMAGE, /* a directory */
	DUMP_QEMU,  /* a classic migration stream, for -incoming */
};

struct dump_options {
	pid_t pid;
	enum dump_format format;
	const char *out;	/* what to make; "-": stdout (DUMP_QEMU) */
	const char *qmp;	/* path; NULL: find it */
	uint64_t buffer_bytes;	/* 0: a share of free memory */
	uint64_t granule_bytes; /* 0: chosen by backing */
	struct image_writer_options writer;
	struct storage_options storage;
	capture_progress_fn progress; /* may be NULL */
	void *progress_opaque;
};

/*
 * Dumps. Returns 0 when the snapshot is there and whole; else RESULT_* or
 * -errno, after one error line, with nothing left on disk or in the target.
 * Only overlays that the VM went over to stay in use, and a line for each says
 * so. Nothing is written to stdout before the instant.
 */
int flow_dump(const struct dump_options *options, struct image_stats *stats);
