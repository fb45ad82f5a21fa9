/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The main job: a consistent snapshot of a running VM or process.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "capture/capture.h"
#include "flow/storage.h"
#include "image/image.h"
#include "image/writer.h"
#include "qemu/courier.h"
#include "qemu/vm.h"

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

/* What is done about other processes that may write to the memory. */
enum dump_writers {
	DUMP_WRITERS_DEFAULT, /* a VM is refused, of processes it is said */
	DUMP_WRITERS_REFUSE,
	DUMP_WRITERS_AUTO, /* they are covered */
};

struct dump_options {
	pid_t pid;
	/* Of a VM: who writes to its RAM, too, and is to be covered. Else:
	 * further processes to dump, at the same instant. */
	const pid_t *also; /* n_also */
	size_t n_also;
	enum dump_writers writers;
	bool unsafe; /* goes on where something may write unseen */
	enum dump_kind kind;
	enum dump_format format;
	const char *out; /* what to make; "-": stdout (not DUMP_IMAGE) */
	const char *qmp; /* path; NULL: find it */
	/* The domain of libvirt that is to be dumped, instead of `pid`, and
	 * the URI of its daemon, or NULL. */
	const char *domain, *connect;
	struct courier *courier; /* to its monitor; flow_dump() fills it in */
	uint64_t buffer_bytes;	 /* 0: a share of free memory */
	uint64_t granule_bytes;	 /* 0: chosen by backing */
	struct image_writer_options writer;
	struct storage_options storage;
	/* Give up a freeze that takes longer; 0: by the kind of target. */
	uint64_t max_pause_ns;
	/* Give up when anybody of the target has to wait for longer, other than
	 * in a freeze that may take longer; 0: never. */
	uint64_t max_stall_ns;
	/* Of a process: */
	bool tree;	  /* its descendants as well */
	bool by_cgroup;	  /* freeze by its cgroup */
	bool all;	  /* what a core dump leaves out as well */
	unsigned retries; /* when memory went away in the middle */
	enum dump_hold hold;
	capture_progress_fn progress; /* may be NULL */
	void *progress_opaque;
};

/* How it went. */
struct dump_report {
	enum image_kind kind; /* what the target was taken for */
	struct image_stats stats;
	struct vm_strings unsafe; /* what may have written unseen */
};

void dump_report_deinit(struct dump_report *report);

/* Whether it makes several images, each named by its pid. */
bool dump_makes_many(const struct dump_options *options);

/* What the target is to be taken for. */
enum image_kind dump_choose_kind(pid_t pid, enum dump_kind kind,
				 const char *qmp_path);

/*
 * Dumps. Returns 0 when the snapshot is there and whole; else RESULT_* or
 * -errno, after one error line, with nothing left on disk or in the target.
 * Only overlays that the VM went over to stay in use, and a line for each says
 * so. Nothing is written to stdout before the instant. The caller deinits the
 * report in every case.
 */
int flow_dump(const struct dump_options *options, struct dump_report *report);
