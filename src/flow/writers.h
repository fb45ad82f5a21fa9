/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Other processes that have memory of the target mapped, shared and writable: a
 * vhost-user backend, an ivshmem peer. What they write raises no fault in the
 * target; so those mappings are armed as well, in them, and they stand at the
 * instant. Nothing else of them is touched, and nothing of them is in the
 * image.
 *
 *	writers_add_file…	which files the memory is
 *	writers_open		who has them mapped, and which of them to cover;
 *				nobody is touched
 *	writers_infect		before there are threads
 *	writers_add_to_tracer
 *	writers_arm		their regions
 *	writers_look		running: nobody else has come
 *	writers_take		standing: they are what was armed
 *
 * What is not seen: writes through descriptors of the files, processes that may
 * not be looked at, and a mapping that is made and gone between two looks.
 *
 * All return 0, or RESULT_* / -errno after one error line.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "capture/capture.h"
#include "qemu/vm.h"
#include "sys/procfs.h"
#include "target/sharers.h"
#include "target/target.h"
#include "target/tracer.h"

/* A file that is memory of the target. */
struct writers_file {
	struct proc_map map; /* device, inode and path */
	int fd;		     /* the caller's; -1: not to be armed */
	uint64_t id;	     /* region_desc.file_id */
	uint64_t page_size;
};

/* Where a process has some of a file. */
struct writers_part {
	struct range range;
	uint64_t offset; /* of range.start, in the file */
	size_t file;	 /* index */
};

struct writers_parts {
	struct writers_part *parts; /* ascending, neighbours are joined */
	size_t n;
};

struct writer {
	struct target target;
	unsigned number; /* the engine's and the tracer's */
	int pagemap_fd;
	struct writers_parts armed;
};

struct writers {
	struct writers_file *files;
	size_t n_files;
	struct writer *writers; /* that are covered */
	size_t n_writers;
	/* Who may have the files mapped; the dumped ones are first. */
	pid_t *known;
	size_t n_known;
};

/* Whom to cover. */
struct writers_policy {
	bool all;
	const pid_t *named; /* n_named; each must have a file mapped */
	size_t n_named;
};

void writers_deinit(struct writers *writers);

#define _cleanup_writers_ _cleanup_(writers_deinit)

/* `map` is one of the target's; a file that is known is passed over. */
int writers_add_file(struct writers *writers, const struct proc_map *map,
		     int fd, uint64_t id, uint64_t page_size);

/* These are known: they are passed over. 0 or -ENOMEM. */
int writers_skip(struct writers *writers, const pid_t *pids, size_t n);

/* Calls for whoever has a file mapped, but those that are known and those that
 * were started before `since_ns`; see sharers_walk(). */
int writers_walk(const struct writers *writers, uint64_t since_ns,
		 sharers_fn fn, void *opaque);

/*
 * `dumped` are the target's own processes. Appends to `others` a line for each
 * process that is not covered, and to `dma` what else may write to memory of
 * those that are.
 */
int writers_open(struct writers *writers, const struct writers_policy *policy,
		 const pid_t *dumped, size_t n_dumped,
		 struct vm_strings *others, struct vm_strings *dma);

/* Appends what shows that something writes to the memory of a process past its
 * page tables: devices, pinned pages. */
int writers_list_dma(const struct target *target, struct vm_strings *reasons);

int writers_infect(struct writers *writers, struct capture *capture,
		   uint64_t features);
int writers_add_to_tracer(struct writers *writers, struct tracer *tracer);

/* `registers`: for an engine that leaves that to its caller; then they stand.
 */
int writers_arm(struct writers *writers, struct capture *capture,
		bool registers);

/* Looks at all processes of the host: RESULT_INCONSISTENT when another one has
 * a file mapped, or one that is covered has it where it is not armed. */
int writers_look(const struct writers *writers);

int writers_take(const struct writers *writers);
