/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The main job: a consistent snapshot of a running VM or process.
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
	DUMP_CORE,  /* an ELF core, of a process */
};

enum dump_kind {
	DUMP_KIND_AUTO, /* by the target's program */
	DUMP_KIND_QEMU,
	DUMP_KIND_PROCESS,
};

/* Whether system calls that take memory away wait for its capture. */
enum dump_hold {
	DUMP_HOLD_AUTO, /* once memory has been lost without that */
	DUMP_HOLD_YES,
	DUMP_HOLD_NO,
};

struct dump_options {
	pid_t pid;
	enum dump_kind kind;
	enum dump_format format;
	const char *out;	/* what to make; "-": stdout (not DUMP_IMAGE) */
	const char *qmp;	/* path; NULL: find it */
	uint64_t buffer_bytes;	/* 0: a share of free memory */
	uint64_t granule_bytes; /* 0: chosen by backing */
	struct image_writer_options writer;
	struct storage_options storage;
	/* Of a process: */
	bool tree;	  /* its descendants as well */
	bool by_cgroup;	  /* freeze by its cgroup */
	bool all;	  /* what a core dump leaves out as well */
	unsigned retries; /* when memory went away in the middle */
	enum dump_hold hold;
	uint64_t max_pause_ns;	      /* give up a freeze that takes longer */
	capture_progress_fn progress; /* may be NULL */
	void *progress_opaque;
};

/* What the target is to be taken for. */
enum image_kind dump_choose_kind(pid_t pid, enum dump_kind kind,
				 const char *qmp_path);

/*
 * Dumps. Returns 0 when the snapshot is there and whole; else RESULT_* or
 * -errno, after one error line, with nothing left on disk or in the target.
 * Only overlays that the VM went over to stay in use, and a line for each says
 * so. Nothing is written to stdout before the instant. `kind` is what the
 * target was taken for.
 */
int flow_dump(const struct dump_options *options, enum image_kind *kind,
	      struct image_stats *stats);
