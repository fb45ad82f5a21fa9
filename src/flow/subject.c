/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/subject.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "flow/keeper.h"
#include "process/describe.h"
#include "snapuffd/image-format.h"
#include "sys/pagemap.h"

#define RUN_BYTES ((size_t)IMAGE_RUN_MAX_PAGES * PAGE_SIZE)

int subject_open(struct subject *s, pid_t pid, bool all,
		 struct mapped_files *files)
{
	int r;

	*s = (struct subject){ .target = TARGET_INIT,
			       .pagemap_fd = -1,
			       .mem_fd = -1,
			       .files = files };
	r = INJECT("probe-open") ?: target_open(&s->target, pid);
	if (r)
		return r;
	s->pagemap_fd = pagemap_open(s->target.proc_fd);
	if (s->pagemap_fd < 0)
		return log_errno(s->pagemap_fd, "pid %d: /proc/%d/pagemap: %m",
				 pid, pid);
	s->mem_fd = openat(s->target.proc_fd, "mem", O_RDONLY | O_CLOEXEC);
	if (s->mem_fd < 0)
		return log_errno(-errno, "pid %d: /proc/%d/mem: %m", pid, pid);
	r = describe_process(&s->process, &s->target);
	INJECT_INTO(r, "probe-describe-done");
	if (r)
		return r;
	s->rules.filter = s->process.coredump_filter;
	s->rules.all = all;
	r = smaps_read(s->target.proc_fd, &s->smaps, &s->rules.n_smaps);
	if (r)
		return log_errno(r, "pid %d: /proc/%d/smaps: %m", pid, pid);
	s->rules.smaps = s->smaps;
	return process_layout_read(&s->layout, &s->target, &s->rules, files);
}

void subject_close(struct subject *s)
{
	image_writer_free(s->writer);
	image_process_deinit(&s->process);
	copies_deinit(&s->copies);
	cover_deinit(&s->cover);
	process_layout_deinit(&s->layout);
	free(s->smaps);
	close_fd(&s->pagemap_fd);
	close_fd(&s->mem_fd);
	target_close(&s->target);
}

uint64_t subject_size(const struct subject *s)
{
	uint64_t size = 0;

	for (size_t i = 0; i < s->layout.maps.n_maps; i++) {
		const struct layout_item *item = &s->layout.items[i];
		const struct smap *smap = smaps_find(s->smaps, s->rules.n_smaps,
						     item->map->range.start);

		if (item->how == LAYOUT_CAPTURE)
			size += smap ? smap->resident : item->held;
	}
	return size;
}

int subject_list_files(const struct subject *s, struct writers *writers,
		       bool held)
{
	int r = 0;

	for (size_t i = 0; !r && i < s->layout.maps.n_maps; i++) {
		const struct layout_item *item = &s->layout.items[i];
		bool captured = item->how == LAYOUT_CAPTURE;

		if (item->how == LAYOUT_NONE || !item->map->shared ||
		    !item->map->inode || (item->how != LAYOUT_FILE) != held)
			continue;
		r = writers_add_file(
			writers, item->map,
			captured ? s->files->files[item->file].fd : -1,
			captured ? item->file + 1 : 0, item->page_size);
	}
	return r;
}

int subject_infect(struct subject *s, struct capture *capture,
		   uint64_t features)
{
	struct capture_space space = {
		.pid = s->target.pid,
		.pidfd = s->target.pidfd,
		.pagemap_fd = s->pagemap_fd,
		.mem_fd = s->mem_fd,
	};
	int r = keeper_fetch_uffd(&s->target, capture_get_watch(capture),
				  features, &space.uffd);

	if (r)
		return r;
	r = INJECT("infect-add-space") ?: capture_add_space(capture, &space);
	if (r < 0)
		return r;
	s->number = (unsigned)r;
	s->cover = (struct cover){
		.space = s->number,
		.pagemap_fd = s->pagemap_fd,
		.pid = s->target.pid,
	};
	return 0;
}

int subject_add_to_tracer(struct subject *s, struct tracer *tracer)
{
	int r = tracer_add(tracer, &s->target);

	/* It counts as the engine does. */
	assert(r < 0 || (unsigned)r == s->number);
	return r < 0 ? r : 0;
}

static int look_again(struct subject *s)
{
	process_layout_deinit(&s->layout);
	return process_layout_read(&s->layout, &s->target, &s->rules, s->files);
}

/* The descriptors are of the memory that it had when they were opened. */
static int check_same_program(const struct subject *s)
{
	uint64_t word, at;
	int r;

	if (!s->layout.maps.n_maps)
		return 0;
	at = s->layout.maps.maps[0].range.start / PAGE_SIZE * sizeof(word);
	r = io_pread_full(s->pagemap_fd, &word, sizeof(word), at);
	if (!r)
		return 0;
	log_error("pid %d: executes another program than when the dump began",
		  s->target.pid);
	return RESULT_INCONSISTENT;
}

int subject_cover(struct subject *s, struct capture *capture)
{
	int r = look_again(s);

	if (!r)
		r = INJECT("cover-begin") ?: check_same_program(s);
	return r ? r : cover_begin(&s->cover, capture, &s->layout, s->files);
}

int subject_prepare(struct subject *s)
{
	s->copies.pid = s->target.pid;
	s->copies.mem_fd = s->mem_fd;
	return copies_prepare(&s->copies, s->pagemap_fd, &s->layout, s->files);
}

static int add_region(struct subject *s, struct range range,
		      enum image_backing backing, uint64_t page_size,
		      const char *file)
{
	char name[40];
	struct image_region region = {
		.name = name,
		.address = range.start,
		.length = range_len(range),
		.page_size = (uint32_t)page_size,
		.backing = backing,
		.file = (char *)file,
	};

	snprintf(name, sizeof(name), "%llx", (unsigned long long)range.start);
	return image_writer_add_region(s->writer, &region);
}

/* One region of the image a part of the cover, by the same numbers. */
static int add_covered(struct subject *s)
{
	int r = 0;

	for (size_t i = 0; !r && i < s->cover.n_parts; i++) {
		const struct cover_part *part = &s->cover.parts[i];
		const struct proc_map *map =
			proc_maps_find(&s->layout.maps, part->range.start);

		r = add_region(s, part->range,
			       !part->file_id ? IMAGE_BACKING_ANON
			       : part->shared ? IMAGE_BACKING_SHARED
					      : IMAGE_BACKING_PRIVATE_FILE,
			       part->page_size,
			       part->file_id && map ? map->path : NULL);
	}
	return r;
}

int subject_take(struct subject *s, struct capture *capture)
{
	int r = look_again(s);

	if (!r)
		r = check_same_program(s);
	INJECT_INTO(r, "take-cover");
	if (!r)
		r = cover_finish(&s->cover, capture, &s->layout, s->files);
	INJECT_INTO(r, "take-copies");
	if (!r)
		r = copies_take(&s->copies, s->pagemap_fd, &s->layout,
				s->files);
	return r ? r : add_covered(s);
}

bool subject_captures_file(const struct subject *s, size_t file)
{
	for (size_t i = 0; i < s->cover.n_parts; i++)
		if (s->cover.parts[i].file_id && s->cover.parts[i].file == file)
			return true;
	return false;
}

int subject_describe(struct subject *s, const struct tracer *tracer)
{
	const struct tracer_thread *threads;
	size_t n;
	int r;

	threads = tracer_get_threads(tracer, &n);
	r = describe_threads(&s->process, &s->target, s->number, threads, n);
	return r ? r : describe_mappings(&s->process, &s->layout, s->files);
}

/* The part of the cover that holds `addr`. */
static const struct cover_part *find_part(const struct cover *cover,
					  uint64_t addr)
{
	size_t low = 0, high = cover->n_parts;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (addr < cover->parts[mid].range.start)
			high = mid;
		else if (addr >= cover->parts[mid].range.end)
			low = mid + 1;
		else
			return &cover->parts[mid];
	}
	return NULL;
}

int subject_put(struct subject *s, struct range range, const void *data,
		struct hold *hold)
{
	const uint8_t *at = data;

	while (range.start < range.end) {
		const struct cover_part *part =
			find_part(&s->cover, range.start);
		uint64_t len;
		int r;

		if (!part)
			return log_errno(
				-EPROTO,
				"pid %d: %#llx was captured but is not mapped",
				s->target.pid, (unsigned long long)range.start);
		len = min_u64(range.end, part->range.end) - range.start;
		r = image_writer_put_pages(
			s->writer, (unsigned)(part - s->cover.parts),
			(range.start - part->range.start) / PAGE_SIZE,
			len / PAGE_SIZE, at, hold);
		if (r)
			return r;
		at += len;
		range.start += len;
	}
	return 0;
}

/* Waits, so that the buffer may be used again. */
static int put_now(struct subject *s, unsigned region, uint64_t first,
		   uint64_t n, const void *data)
{
	int r = image_writer_put_pages(s->writer, region, first, n, data, NULL);

	while (!r) {
		r = image_writer_wait(s->writer);
		if (!r)
			return 0;
		r = r > 0 ? 0 : r;
	}
	return r;
}

/* Bytes of a file, zeros behind its end. */
static int put_file_pages(struct subject *s, const struct layout_item *item,
			  unsigned region, struct range range, uint8_t *buf)
{
	const struct proc_map *map = item->map;
	/* What is no file's on a disk has changed since. */
	int fd = layout_is_sysv(map) ? -1 : s->files->files[item->file].fd;

	while (range.start < range.end) {
		uint64_t offset = range.start - map->range.start;
		size_t len = min_u64(range_len(range), RUN_BYTES);
		ssize_t got = fd < 0 ? 0
				     : pread(fd, buf, len,
					     (off_t)(map->offset + offset));
		int r;

		if (got < 0)
			return log_errno(-errno, "pid %d: reading %s: %m",
					 s->target.pid, map->path);
		if (!got)
			return 0;
		if (interrupt_pending())
			return -EINTR;
		len = ROUND_UP((size_t)got, PAGE_SIZE);
		memset(buf + got, 0, len - (size_t)got);
		r = put_now(s, region, offset / PAGE_SIZE, len / PAGE_SIZE,
			    buf);
		if (r)
			return r;
		range.start += len;
	}
	return 0;
}

struct rest {
	unsigned region; /* the next of the image */
	size_t run;	 /* the next of the copies */
	const uint8_t *data;
	uint8_t *buf; /* of RUN_BYTES, page-aligned */
};

static int put_copied(struct subject *s, unsigned region, uint64_t first,
		      uint64_t n, const uint8_t *data)
{
	int r = 0;

	while (!r && n) {
		uint64_t some = min_u64(n, IMAGE_RUN_MAX_PAGES);

		r = put_now(s, region, first, some, data);
		first += some;
		n -= some;
		data += some * PAGE_SIZE;
	}
	return r;
}

/* What was copied of a mapping, and between that, its file. */
static int put_item(struct subject *s, const struct layout_item *item,
		    struct rest *rest)
{
	struct range held = { item->map->range.start,
			      item->map->range.start + item->held };
	uint64_t at = held.start;
	int r;

	r = add_region(s, held,
		       !item->map->inode   ? IMAGE_BACKING_ANON
		       : item->map->shared ? IMAGE_BACKING_SHARED
					   : IMAGE_BACKING_PRIVATE_FILE,
		       PAGE_SIZE, item->map->inode ? item->map->path : NULL);
	while (!r && rest->run < s->copies.n_runs &&
	       s->copies.runs[rest->run].start < held.end) {
		struct range run = s->copies.runs[rest->run++];

		r = put_file_pages(s, item, rest->region,
				   (struct range){ at, run.start }, rest->buf);
		if (!r)
			r = put_copied(s, rest->region,
				       (run.start - held.start) / PAGE_SIZE,
				       range_len(run) / PAGE_SIZE, rest->data);
		rest->data += range_len(run);
		at = run.end;
	}
	if (!r && item->map->inode)
		r = put_file_pages(s, item, rest->region,
				   (struct range){ at, held.end }, rest->buf);
	rest->region++;
	return r;
}

int subject_put_rest(struct subject *s)
{
	_cleanup_free_ uint8_t *buf = aligned_alloc(PAGE_SIZE, RUN_BYTES);
	struct rest rest = {
		.region = (unsigned)s->cover.n_parts,
		.data = s->copies.data,
		.buf = buf,
	};
	int r = 0;

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; !r && i < s->layout.maps.n_maps; i++) {
		const struct layout_item *item = &s->layout.items[i];

		if (item->how == LAYOUT_COPY || item->how == LAYOUT_FILE)
			r = put_item(s, item, &rest);
	}
	return r;
}
