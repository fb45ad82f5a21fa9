/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/writers.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/admit.h"
#include "flow/keeper.h"
#include "sys/pagemap.h"
#include "sys/pidfd.h"
#include "sys/pidlist.h"
#include "sys/procpins.h"
#include "sys/uffd.h"

static void writer_deinit(struct writer *writer)
{
	free(writer->armed.parts);
	close_fd(&writer->pagemap_fd);
	target_close(&writer->target);
}

void writers_deinit(struct writers *w)
{
	for (size_t i = 0; i < w->n_writers; i++)
		writer_deinit(&w->writers[i]);
	free(w->writers);
	for (size_t i = 0; i < w->n_files; i++)
		free(w->files[i].map.path);
	free(w->files);
	free(w->known);
	*w = (struct writers){};
}

/* Its index, or n_files. */
static size_t find_file(const struct writers *w, const struct proc_map *map)
{
	size_t i = 0;

	while (i < w->n_files && (w->files[i].map.dev != map->dev ||
				  w->files[i].map.inode != map->inode))
		i++;
	return i;
}

int writers_add_file(struct writers *w, const struct proc_map *map, int fd,
		     uint64_t id, uint64_t page_size)
{
	struct writers_file *files;
	char *path;

	if (find_file(w, map) < w->n_files)
		return 0;
	files = reallocarray(w->files, w->n_files + 1, sizeof(*files));
	if (!files)
		return -ENOMEM;
	w->files = files;
	path = strdup(map->path);
	if (!path)
		return -ENOMEM;
	files[w->n_files] = (struct writers_file){
		.map = *map,
		.fd = fd,
		.id = id,
		.page_size = page_size,
	};
	files[w->n_files++].map.path = path;
	return 0;
}

int writers_walk(const struct writers *w, uint64_t since_ns, sharers_fn fn,
		 void *opaque)
{
	_cleanup_free_ const struct proc_map **maps =
		calloc(w->n_files + 1, sizeof(*maps));
	int r;

	if (!maps)
		return -ENOMEM;
	for (size_t i = 0; i < w->n_files; i++)
		maps[i] = &w->files[i].map;
	r = sharers_walk(maps, w->n_files, w->known, w->n_known, since_ns, fn,
			 opaque);
	return r < 0 ? log_errno(r, "looking for who shares memory: %m") : r;
}

/* What is found while /proc is read. */
struct search {
	struct writers *writers;
	const struct writers_policy *policy;
	struct pid_list cover, leave;
	struct vm_strings *others;
};

static int sort_out(void *opaque, pid_t pid, const char *name,
		    const struct proc_map *map)
{
	struct search *search = opaque;
	const struct writers_policy *policy = search->policy;

	if (policy->all || pid_is_in(pid, policy->named, policy->n_named))
		return pid_list_append(&search->cover, pid);
	return pid_list_append(&search->leave, pid)
		       ?: vm_strings_add(
				  search->others,
				  "process %d (%s) has %.100s mapped and may write to it",
				  pid, name, map->path);
}

int writers_skip(struct writers *w, const pid_t *pids, size_t n)
{
	pid_t *known =
		reallocarray(w->known, w->n_known + n + 1, sizeof(*known));

	if (!known)
		return -ENOMEM;
	w->known = known;
	for (size_t i = 0; i < n; i++)
		known[w->n_known++] = pids[i];
	return 0;
}

static int cover(struct writers *w, const pid_t *pids, size_t n,
		 struct vm_strings *dma)
{
	int r = 0;

	w->writers = calloc(n + 1, sizeof(*w->writers));
	if (!w->writers)
		return -ENOMEM;
	for (size_t i = 0; !r && i < n; i++) {
		struct writer *writer = &w->writers[w->n_writers++];

		*writer = (struct writer){ .target = TARGET_INIT,
					   .pagemap_fd = -1 };
		r = target_open(&writer->target, pids[i]);
		if (!r)
			r = admit(&writer->target, true);
		if (r)
			break;
		writer->pagemap_fd = pagemap_open(writer->target.proc_fd);
		if (writer->pagemap_fd < 0)
			return log_errno(writer->pagemap_fd,
					 "pid %d: /proc/%d/pagemap: %m",
					 pids[i], pids[i]);
		r = writers_list_dma(&writer->target, dma);
	}
	return r;
}

static int check_named(const struct writers_policy *policy,
		       const struct pid_list *cover)
{
	for (size_t i = 0; i < policy->n_named; i++) {
		if (pid_is_in(policy->named[i], cover->pids, cover->n))
			continue;
		log_error(
			"pid %d: has no memory of the target mapped, shared and writable; leave this --pid out",
			policy->named[i]);
		return RESULT_UNSUPPORTED;
	}
	return 0;
}

int writers_open(struct writers *w, const struct writers_policy *policy,
		 const pid_t *dumped, size_t n_dumped,
		 struct vm_strings *others, struct vm_strings *dma)
{
	struct search search = { .writers = w,
				 .policy = policy,
				 .others = others };
	int r = writers_skip(w, dumped, n_dumped);

	if (!r)
		r = writers_walk(w, 0, sort_out, &search);
	if (!r)
		r = check_named(policy, &search.cover);
	if (!r)
		r = writers_skip(w, search.cover.pids, search.cover.n);
	if (!r)
		r = writers_skip(w, search.leave.pids, search.leave.n);
	if (!r)
		r = cover(w, search.cover.pids, search.cover.n, dma);
	free(search.cover.pids);
	free(search.leave.pids);
	return r;
}

int writers_list_dma(const struct target *target, struct vm_strings *reasons)
{
	struct proc_pins pins;
	int r = procpins_read(target->proc_fd, &pins);

	if (r)
		return log_errno(r, "pid %d: its descriptors: %m", target->pid);
	if (*pins.device)
		r = vm_strings_add(
			reasons,
			"process %d (%s) has %s open, by which a device may write to memory",
			target->pid, target->status.name, pins.device);
	if (!r && pins.pinned_bytes)
		r = vm_strings_add(
			reasons,
			"process %d (%s) has %" PRIu64
			" KiB of memory pinned%s, which may be written to past its page tables",
			target->pid, target->status.name,
			pins.pinned_bytes / KIB,
			pins.n_buffers
				? " (buffers that are registered with io_uring)"
				: "");
	return r;
}

static int infect(struct writer *writer, struct capture *capture,
		  uint64_t features)
{
	struct capture_space space = {
		.pid = writer->target.pid,
		.pidfd = writer->target.pidfd,
		.pagemap_fd = writer->pagemap_fd,
		.mem_fd = -1,
	};
	/* A child has what is shared, too. */
	int r = keeper_fetch_uffd(&writer->target, capture_get_watch(capture),
				  features | UFFD_FEATURE_EVENT_FORK,
				  &space.uffd);

	if (r)
		return r;
	r = capture_add_space(capture, &space);
	if (r < 0)
		return r;
	writer->number = (unsigned)r;
	return 0;
}

int writers_infect(struct writers *w, struct capture *capture,
		   uint64_t features)
{
	int r = 0;

	for (size_t i = 0; !r && i < w->n_writers; i++)
		r = infect(&w->writers[i], capture, features);
	return r;
}

int writers_add_to_tracer(struct writers *w, struct tracer *tracer)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < w->n_writers; i++)
		r = tracer_add(tracer, &w->writers[i].target);
	return r < 0 ? r : 0;
}

/* Appends, or makes the last one longer. */
static int add_part(struct writers_parts *list, struct writers_part part)
{
	struct writers_part *last = list->n ? &list->parts[list->n - 1] : NULL;
	struct writers_part *parts;

	if (last && last->file == part.file &&
	    last->range.end == part.range.start &&
	    last->offset + range_len(last->range) == part.offset) {
		last->range.end = part.range.end;
		return 0;
	}
	parts = reallocarray(list->parts, list->n + 1, sizeof(*parts));
	if (!parts)
		return -ENOMEM;
	list->parts = parts;
	parts[list->n++] = part;
	return 0;
}

/* What a process has of the files that are to be armed. */
static int list_parts(const struct writers *w, const struct writer *writer,
		      struct writers_parts *list)
{
	struct proc_maps maps = {};
	int r = target_read_maps(&writer->target, &maps);

	*list = (struct writers_parts){};
	for (size_t i = 0; !r && i < maps.n_maps; i++) {
		const struct proc_map *map = &maps.maps[i];
		struct writers_part part = { map->range, map->offset };

		if (!map->shared || !map->write || !map->inode)
			continue;
		part.file = find_file(w, map);
		if (part.file < w->n_files && w->files[part.file].fd >= 0)
			r = add_part(list, part);
	}
	proc_maps_deinit(&maps);
	return r;
}

static int arm_part(const struct writers *w, const struct writer *writer,
		    const struct writers_part *part, struct capture *capture,
		    bool registers)
{
	const struct writers_file *file = &w->files[part->file];
	struct region_desc desc = {
		.space = writer->number,
		.range = part->range,
		.page_size = file->page_size,
		.fd = file->fd,
		.fd_offset = part->offset,
		.shared = true,
		.file_id = file->id,
		.guard = true,
	};
	int r = registers
			? capture_register(capture, writer->number, part->range)
			: 0;

	log_debug("pid %d: %s is armed at %#" PRIx64, writer->target.pid,
		  file->map.path, part->range.start);
	return r ? r : capture_add_region(capture, &desc);
}

int writers_arm(struct writers *w, struct capture *capture, bool registers)
{
	int r = 0;

	for (size_t i = 0; !r && i < w->n_writers; i++) {
		struct writer *writer = &w->writers[i];

		r = list_parts(w, writer, &writer->armed);
		INJECT_INTO(r, "writers-arm");
		for (size_t k = 0; !r && k < writer->armed.n; k++)
			r = arm_part(w, writer, &writer->armed.parts[k],
				     capture, registers);
	}
	return r;
}

static bool is_armed(const struct writer *writer,
		     const struct writers_part *part)
{
	for (size_t i = 0; i < writer->armed.n; i++) {
		const struct writers_part *have = &writer->armed.parts[i];

		if (have->file == part->file &&
		    have->range.start <= part->range.start &&
		    have->range.end >= part->range.end &&
		    part->range.start - have->range.start ==
			    part->offset - have->offset)
			return true;
	}
	return false;
}

/* Whether all that it has is armed, and, `exactly`, all armed is there. */
static int check_parts(const struct writers *w, const struct writer *writer,
		       bool exactly)
{
	struct writers_parts parts;
	bool same;
	int r = list_parts(w, writer, &parts);

	same = !exactly || parts.n == writer->armed.n;
	for (size_t i = 0; !r && same && i < parts.n; i++)
		same = is_armed(writer, &parts.parts[i]) &&
		       (!exactly ||
			range_len(parts.parts[i].range) ==
				range_len(writer->armed.parts[i].range));
	free(parts.parts);
	if (r || same)
		return r;
	log_error(
		"pid %d: has changed how it maps memory of the target since the dump began; the snapshot is discarded",
		writer->target.pid);
	return RESULT_INCONSISTENT;
}

int writers_take(const struct writers *w)
{
	int r = 0;

	for (size_t i = 0; !r && i < w->n_writers; i++)
		r = INJECT("writers-take")
			    ?: check_parts(w, &w->writers[i], true);
	return r;
}

static int refuse_newcomer(void *opaque, pid_t pid, const char *name,
			   const struct proc_map *map)
{
	(void)opaque;
	log_error(
		"pid %d: (%s) has mapped %s, memory of the target, since the dump began; the snapshot is discarded",
		pid, name, map->path);
	return RESULT_INCONSISTENT;
}

int writers_look(const struct writers *w)
{
	int r = writers_walk(w, 0, refuse_newcomer, NULL);

	for (size_t i = 0; !r && i < w->n_writers; i++)
		if (pidfd_is_alive(w->writers[i].target.pidfd))
			r = check_parts(w, &w->writers[i], false);
	return r;
}
