/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/convert.h"
#include "image/reader.h"
#include "image/writer.h"
#include "snapuffd.pb-c.h"
#include "snapuffd/image-format.h"

#define N_PAGES	 8
#define TAIL_LEN 5000
#define MANY	 10000

struct fixture {
	char top[64];
	char dir[80];
	uint8_t *memory; /* N_PAGES; the third and the last are zero */
	uint8_t tail[TAIL_LEN];
	uint8_t blob[16384];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->top, "/tmp/snapuffd-process-XXXXXX");
	assert_non_null(mkdtemp(f->top));
	snprintf(f->dir, sizeof(f->dir), "%s/image", f->top);
	f->memory = aligned_alloc(PAGE_SIZE, N_PAGES * PAGE_SIZE);
	for (size_t i = 0; i < N_PAGES; i++)
		memset(f->memory + i * PAGE_SIZE,
		       i == 2 || i == N_PAGES - 1 ? 0 : (int)i + 1, PAGE_SIZE);
	memset(f->tail, 0x5a, sizeof(f->tail));
	for (size_t i = 0; i < sizeof(f->blob); i++)
		f->blob[i] = (uint8_t)(i * 7);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", f->top);
	assert_int_equal(system(command), 0);
	free(f->memory);
	free(f);
	return 0;
}

/* A process with a little of everything, for a test to spoil. */
struct sample {
	struct image_mapping mappings[2];
	struct image_thread threads[2];
	struct image_fd fd;
	char *argv[2], *env[1];
	gid_t groups[2];
	uint8_t auxv[48];
	struct image_process process;
};

static void sample_init(struct sample *s, struct fixture *f)
{
	*s = (struct sample){
		.mappings = {
			{ .start = 0x400000, .end = 0x404000,
			  .prot = PROT_READ | PROT_EXEC, .offset = 0x2000,
			  .dev_major = 8, .dev_minor = 1, .inode = 77,
			  .name = "/bin/it", .held = 0x1000,
			  .build_id = "00ffaa" },
			{ .start = 0x404000, .end = 0x40c000,
			  .prot = PROT_READ | PROT_WRITE, .shared = true,
			  .name = "", .held = 0x8000 },
		},
		.threads = {
			{ .tid = 412, .name = "it", .regs = f->blob,
			  .regs_len = 216, .xstate = f->blob,
			  .xstate_len = 2696, .sigpending = 1,
			  .sigblocked = 1ull << 63, .utime_ns = 5 },
			{ .tid = 413, .name = "", .regs = f->blob + 1,
			  .regs_len = 216, .xstate = f->blob + 1,
			  .xstate_len = 576, .siginfo = f->blob,
			  .siginfo_len = 128, .stime_ns = 6 },
		},
		.fd = { .fd = 3, .path = "/dev/null", .flags = O_RDWR,
			.position = 9 },
		.argv = { "it", "" },
		.env = { "A=\xff" },
		.groups = { 4, 5 },
		.auxv = { 6, [8] = 1 },
	};
	s->process = (struct image_process){
		.pid = 412,
		.ppid = 1,
		.pgrp = 412,
		.sid = 400,
		.uids = { 1, 2, 3, 4 },
		.gids = { 5, 6, 7, 8 },
		.groups = s->groups,
		.n_groups = 2,
		.cap_permitted = 1ull << 40,
		.cap_effective = 1,
		.state = 'S',
		.nice = -7,
		.flags = 0x400000,
		.name = "it",
		.exe = "/bin/it",
		.argv = s->argv,
		.n_args = 2,
		.env = s->env,
		.n_env = 1,
		.auxv = s->auxv,
		.auxv_len = sizeof(s->auxv),
		.coredump_filter = 0x33,
		.mappings = s->mappings,
		.n_mappings = 2,
		.threads = s->threads,
		.n_threads = 2,
		.fds = &s->fd,
		.n_fds = 1,
	};
}

static const struct image_writer_options no_options;

static void add_region(struct image_writer *w, uint64_t address,
		       uint64_t n_pages)
{
	struct image_region region = {
		.name = "r",
		.address = address,
		.length = n_pages * PAGE_SIZE,
		.page_size = 4096,
		.backing = IMAGE_BACKING_ANON,
	};

	assert_int_equal(image_writer_add_region(w, &region), 0);
}

static struct image_writer *begin(struct fixture *f)
{
	struct image_writer *w;

	assert_int_equal(image_writer_new(&w, f->dir, &no_options), 0);
	assert_int_equal(image_writer_use_core(w), 0);
	return w;
}

static void finish(struct image_writer *w, struct fixture *f,
		   const struct image_process *process)
{
	struct image_frame frame = { f->blob, f->tail, TAIL_LEN };
	struct image_inventory inventory = {
		.version = IMAGE_VERSION,
		.kind = IMAGE_KIND_PROCESS,
		.complete = true,
		.tool_version = "test",
		.host = "host",
		.kernel = "6.1",
		.pid = 412,
	};
	struct image_stats stats = {};

	assert_int_equal(image_writer_put_process(w, process, &frame), 0);
	assert_int_equal(image_writer_commit(w, &inventory, &stats), 0);
	image_writer_free(w);
}

/* Of two regions, the second added when the first has its pages already. */
static void write_image(struct fixture *f, const struct image_process *process)
{
	struct image_writer *w = begin(f);

	add_region(w, 0x404000, 5);
	assert_int_equal(image_writer_put_pages(w, 0, 0, 5, f->memory, NULL),
			 0);
	add_region(w, 0x400000, 1);
	add_region(w, 0x409000, 3);
	assert_int_equal(image_writer_put_pages(
				 w, 2, 0, 3, f->memory + 5 * PAGE_SIZE, NULL),
			 0);
	assert_int_equal(
		image_writer_put_pages(w, 1, 0, 1, f->memory + PAGE_SIZE, NULL),
		0);
	finish(w, f, process);
}

static int read_all(const char *dir)
{
	struct image *image = NULL;
	int r = image_open(&image, dir);

	if (!r)
		r = image_verify(image);
	image_close(image);
	return r;
}

static void the_process_is_read_as_written(void **state)
{
	struct fixture *f = *state;
	const struct image_process *p;
	struct image *image;
	struct sample s;

	sample_init(&s, f);
	write_image(f, &s.process);
	assert_int_equal(image_open(&image, f->dir), 0);
	assert_int_equal(image_verify(image), 0);
	assert_int_equal(image->inventory.kind, IMAGE_KIND_PROCESS);
	p = &image->process;
	assert_int_equal(p->pid, 412);
	assert_int_equal(p->sid, 400);
	assert_memory_equal(p->uids, s.process.uids, sizeof(p->uids));
	assert_memory_equal(p->gids, s.process.gids, sizeof(p->gids));
	assert_int_equal(p->n_groups, 2);
	assert_int_equal(p->groups[1], 5);
	assert_int_equal(p->cap_permitted, 1ull << 40);
	assert_int_equal(p->state, 'S');
	assert_int_equal(p->nice, -7);
	assert_int_equal(p->flags, 0x400000);
	assert_string_equal(p->name, "it");
	assert_string_equal(p->exe, "/bin/it");
	assert_null(p->cwd);
	assert_int_equal(p->n_args, 2);
	assert_string_equal(p->argv[1], "");
	assert_string_equal(p->env[0], "A=\xff");
	assert_int_equal(p->auxv_len, sizeof(s.auxv));
	assert_memory_equal(p->auxv, s.auxv, sizeof(s.auxv));
	assert_int_equal(p->coredump_filter, 0x33);
	assert_int_equal(p->n_fds, 1);
	assert_int_equal(p->fds[0].position, 9);
	assert_string_equal(p->fds[0].path, "/dev/null");

	assert_int_equal(p->n_mappings, 2);
	assert_int_equal(p->mappings[0].end, 0x404000);
	assert_int_equal(p->mappings[0].offset, 0x2000);
	assert_int_equal(p->mappings[0].inode, 77);
	assert_int_equal(p->mappings[0].held, 0x1000);
	assert_string_equal(p->mappings[0].build_id, "00ffaa");
	assert_string_equal(p->mappings[1].name, "");
	assert_null(p->mappings[1].build_id);
	assert_true(p->mappings[1].shared);

	assert_int_equal(p->n_threads, 2);
	assert_memory_equal(p->threads[0].regs, f->blob, 216);
	assert_int_equal(p->threads[0].xstate_len, 2696);
	assert_int_equal(p->threads[0].sigblocked, 1ull << 63);
	assert_null(p->threads[0].siginfo);
	assert_int_equal(p->threads[1].tid, 413);
	assert_memory_equal(p->threads[1].siginfo, f->blob, 128);
	assert_int_equal(p->threads[1].stime_ns, 6);
	image_close(image);
}

static void memory_core_holds_all_regions_packed(void **state)
{
	static const uint64_t offsets[] = { 1, 6, 7, 10 }; /* pages */
	static const size_t pages[] = { 0, 1, 5 };
	struct fixture *f = *state;
	_cleanup_free_ char *data = NULL;
	char path[128];
	struct image *image;
	struct sample s;
	size_t len;
	int fd;

	sample_init(&s, f);
	write_image(f, &s.process);
	assert_int_equal(image_open(&image, f->dir), 0);
	assert_int_equal(image->n_regions, 3);
	snprintf(path, sizeof(path), "%s/" IMAGE_CORE, f->dir);
	assert_int_equal(io_read_file(AT_FDCWD, path, GIB, &data, &len), 0);
	assert_int_equal(len, offsets[3] * PAGE_SIZE + TAIL_LEN);
	assert_memory_equal(data, f->blob, PAGE_SIZE);
	for (size_t i = 0; i < 3; i++) {
		const struct image_region *region = &image->regions[i];

		assert_string_equal(region->pages_file, IMAGE_CORE);
		assert_int_equal(region->pages_offset, offsets[i] * PAGE_SIZE);
		assert_memory_equal(data + region->pages_offset,
				    f->memory + pages[i] * PAGE_SIZE,
				    region->length);
	}
	assert_memory_equal(data + offsets[3] * PAGE_SIZE, f->tail, TAIL_LEN);
	/* Pages of zeros are holes. */
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), 3 * PAGE_SIZE);
	assert_int_equal(lseek(fd, 4 * PAGE_SIZE, SEEK_HOLE), 9 * PAGE_SIZE);
	close(fd);
	image_close(image);
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 4;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* Header, every region, holes, tail; and each record. */
static void every_flipped_bit_is_found(void **state)
{
	static const char *const files[] = { IMAGE_CORE, IMAGE_PROCESS,
					     IMAGE_MAPPINGS, IMAGE_THREADS,
					     IMAGE_REGIONS };
	struct fixture *f = *state;
	struct sample s;

	sample_init(&s, f);
	write_image(f, &s.process);
	assert_int_equal(read_all(f->dir), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char path[128];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", f->dir, files[i]);
		assert_int_equal(stat(path, &st), 0);
		for (off_t at = 0; at < st.st_size; at += st.st_size / 97 + 1) {
			flip(path, at);
			assert_int_equal(read_all(f->dir), RESULT_FAILED);
			flip(path, at);
		}
	}
}

static void a_wrong_length_of_memory_core_is_found(void **state)
{
	struct fixture *f = *state;
	char path[128];
	struct sample s;
	struct stat st;

	sample_init(&s, f);
	write_image(f, &s.process);
	snprintf(path, sizeof(path), "%s/" IMAGE_CORE, f->dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(truncate(path, st.st_size + 1), 0);
	assert_int_equal(read_all(f->dir), RESULT_FAILED);
	assert_int_equal(truncate(path, st.st_size - 1), 0);
	assert_int_equal(read_all(f->dir), RESULT_FAILED);
}

/* What a reader must refuse; each spoils one thing. */
#define SPOIL(name, change)                        \
	static void spoil_##name(struct sample *s) \
	{                                          \
		change;                            \
	}

SPOIL(pid, s->process.pid = -1)
SPOIL(ppid, s->process.ppid = -1)
SPOIL(state, s->process.state = '\n')
SPOIL(nice, s->process.nice = 20)
SPOIL(name, s->process.name = "0123456789012345678901234567890123456789"
			      "012345678901234567890123")
SPOIL(groups, s->process.n_groups = 65537)
SPOIL(auxv_len, s->process.auxv_len = 40)
SPOIL(auxv_end, s->auxv[32] = 1)
SPOIL(fd, s->fd.fd = -1)
SPOIL(empty_mapping, s->mappings[0].end = s->mappings[0].start)
SPOIL(reversed_mapping, s->mappings[0].end = 0x3ff000)
SPOIL(part_of_a_page, s->mappings[1].end -= 8; s->mappings[1].held = 0)
SPOIL(shifted_mapping, s->mappings[0].start += 8; s->mappings[0].end += 8)
SPOIL(overlap, s->mappings[1].start -= 0x1000)
SPOIL(order, s->mappings[0].start += 0x100000; s->mappings[0].end += 0x100000)
SPOIL(prot, s->mappings[0].prot = 8)
SPOIL(held_too_much, s->mappings[0].held = 0x5000)
SPOIL(held_part, s->mappings[0].held = 8)
SPOIL(build_id, s->mappings[0].build_id = "../x")
SPOIL(odd_build_id, s->mappings[0].build_id = "abc")
SPOIL(no_threads, s->process.n_threads = 0)
SPOIL(tid, s->threads[1].tid = 0)
SPOIL(regs, s->threads[1].regs_len = 217)
SPOIL(no_regs, s->threads[0].regs_len = 0)
SPOIL(small_xstate, s->threads[0].xstate_len = 575)
SPOIL(large_xstate, s->threads[0].xstate_len = 16385)
SPOIL(siginfo, s->threads[1].siginfo_len = 127)

#define SPOILER(name)               \
	{                           \
#name, spoil_##name \
	}

static const struct {
	const char *name;
	void (*spoil)(struct sample *s);
} spoilers[] = {
	SPOILER(pid),
	SPOILER(ppid),
	SPOILER(state),
	SPOILER(nice),
	SPOILER(name),
	SPOILER(groups),
	SPOILER(auxv_len),
	SPOILER(auxv_end),
	SPOILER(fd),
	SPOILER(empty_mapping),
	SPOILER(reversed_mapping),
	SPOILER(part_of_a_page),
	SPOILER(shifted_mapping),
	SPOILER(overlap),
	SPOILER(order),
	SPOILER(prot),
	SPOILER(held_too_much),
	SPOILER(held_part),
	SPOILER(build_id),
	SPOILER(odd_build_id),
	SPOILER(no_threads),
	SPOILER(tid),
	SPOILER(regs),
	SPOILER(no_regs),
	SPOILER(small_xstate),
	SPOILER(large_xstate),
	SPOILER(siginfo),
};

static void hostile_records_are_refused(void **state)
{
	struct fixture *f = *state;
	gid_t *groups = calloc(65537, sizeof(*groups));
	uint8_t *xstate = calloc(1, 16385);
	char top[64];

	strcpy(top, f->top);
	for (size_t i = 0; i < ARRAY_SIZE(spoilers); i++) {
		struct sample s;

		snprintf(f->dir, sizeof(f->dir), "%s/%zu", top, i);
		sample_init(&s, f);
		s.process.groups = groups;
		s.threads[0].xstate = xstate;
		spoilers[i].spoil(&s);
		write_image(f, &s.process);
		if (read_all(f->dir) != RESULT_FAILED)
			fail_msg("%s: was accepted", spoilers[i].name);
	}
	free(groups);
	free(xstate);
}

/* Bytes where strings are expected: from a record made by hand. */
static void a_string_with_nul_is_refused(void **state)
{
	struct fixture *f = *state;
	Snapuffd__Process message = SNAPUFFD__PROCESS__INIT;
	uint32_t ids[4] = {};

	(void)f;
	message.pid = 1;
	message.state = 'S';
	message.n_uids = message.n_gids = 4;
	message.uids = message.gids = ids;
	for (size_t len = 2; len <= 3; len++) {
		_cleanup_record_ struct record record = {};
		struct image_frame_sums sums;
		struct image_process process;

		message.name.data = (uint8_t *)"it\0";
		message.name.len = len;
		assert_int_equal(record_init(&record, IMAGE_MAGIC_PROCESS), 0);
		assert_int_equal(record_append(&record, &message.base), 0);
		record.pos = sizeof(uint32_t);
		assert_int_equal(decode_process(&record, &process, &sums),
				 len == 2 ? 0 : -EBADMSG);
		image_process_deinit(&process);
	}
}

static int decode_places(const struct image_region *regions, size_t n)
{
	_cleanup_record_ struct record list = {}, pagemap = {};
	struct image_region *got;
	uint64_t core_end;
	size_t n_got;
	int r;

	assert_int_equal(encode_regions_begin(&list, &pagemap), 0);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(encode_region(&list, &pagemap, i, &regions[i]),
				 0);
	list.pos = pagemap.pos = sizeof(uint32_t);
	r = decode_regions(&list, &pagemap, &got, &n_got, &core_end);
	for (size_t i = 0; i < n_got; i++)
		image_region_deinit(&got[i]);
	free(got);
	return r;
}

static void regions_must_not_share_a_place(void **state)
{
	struct image_region r[3];

	(void)state;
	for (size_t i = 0; i < 3; i++)
		r[i] = (struct image_region){
			.name = "r",
			.length = 2 * PAGE_SIZE,
			.page_size = 4096,
			.backing = IMAGE_BACKING_ANON,
			.pages_file = IMAGE_CORE,
			.pages_offset = PAGE_SIZE + i * 2 * PAGE_SIZE,
		};
	assert_int_equal(decode_places(r, 3), 0);
	r[0].pages_offset = 5 * PAGE_SIZE;
	r[2].pages_offset = PAGE_SIZE;
	assert_int_equal(decode_places(r, 3), 0); /* any order */
	r[0].pages_offset -= PAGE_SIZE;
	assert_int_equal(decode_places(r, 3), -EBADMSG);
	r[0].pages_offset += 2 * PAGE_SIZE; /* nobody's page before it */
	assert_int_equal(decode_places(r, 3), -EBADMSG);
	r[0].pages_offset = 5 * PAGE_SIZE - 1;
	assert_int_equal(decode_places(r, 3), -EBADMSG);
	r[0].pages_offset = 0;
	assert_int_equal(decode_places(r, 3), -EBADMSG);
	r[0].pages_file = "own.pages";
	assert_int_equal(decode_places(r, 3), 0);
	r[0].pages_offset = PAGE_SIZE;
	assert_int_equal(decode_places(r, 3), -EBADMSG);
	r[0].pages_offset = r[1].pages_offset = 0;
	r[1].pages_file = r[0].pages_file;
	assert_int_equal(decode_places(r, 3), -EBADMSG);
}

/* The whole of a file, to be freed. */
static char *content_of(const char *dir, const char *name, size_t *len)
{
	char path[160], *data;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(io_read_file(AT_FDCWD, path, GIB, &data, len), 0);
	return data;
}

static void the_core_is_a_sparse_copy(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *from = NULL, *to = NULL;
	size_t from_len, to_len;
	char path[128];
	struct sample s;
	int fd;

	sample_init(&s, f);
	write_image(f, &s.process);
	snprintf(path, sizeof(path), "%s/core", f->top);
	assert_int_equal(flow_convert(f->dir, CONVERT_CORE, path), 0);
	from = content_of(f->dir, IMAGE_CORE, &from_len);
	to = content_of(f->top, "core", &to_len);
	assert_int_equal(to_len, from_len);
	assert_memory_equal(to, from, to_len);
	fd = open(path, O_RDONLY);
	assert_int_equal(lseek(fd, 0, SEEK_HOLE), 3 * PAGE_SIZE);
	close(fd);
}

/* In a child, for stdout is the test's own. */
static void the_core_streams_with_its_zeros(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *from = NULL, *to = NULL;
	size_t from_len, to_len;
	struct sample s;
	int fds[2], status;
	pid_t pid;

	sample_init(&s, f);
	write_image(f, &s.process);
	from = content_of(f->dir, IMAGE_CORE, &from_len);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		dup2(fds[1], STDOUT_FILENO);
		_exit(flow_convert(f->dir, CONVERT_CORE, "-"));
	}
	close(fds[1]);
	assert_int_equal(io_read_all(fds[0], GIB, &to, &to_len), 0);
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(to_len, from_len);
	assert_memory_equal(to, from, to_len);
}

/* A page, the header, the tail: no core is made of a damaged one. */
static void a_damaged_core_is_not_converted(void **state)
{
	static const off_t places[] = { 5 * PAGE_SIZE + 1, 9,
					10 * PAGE_SIZE + 9 };
	struct fixture *f = *state;
	char path[128], out[128];
	struct sample s;

	sample_init(&s, f);
	write_image(f, &s.process);
	snprintf(path, sizeof(path), "%s/" IMAGE_CORE, f->dir);
	snprintf(out, sizeof(out), "%s/core", f->top);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		flip(path, places[i]);
		assert_int_equal(flow_convert(f->dir, CONVERT_CORE, out),
				 RESULT_FAILED);
		assert_int_equal(access(out, F_OK), -1);
		flip(path, places[i]);
	}
}

static void raw_files_are_named_by_address(void **state)
{
	static const struct {
		const char *name;
		size_t page, n;
	} files[] = { { "400000-401000.raw", 1, 1 },
		      { "404000-409000.raw", 0, 5 },
		      { "409000-40c000.raw", 5, 3 } };
	struct fixture *f = *state;
	char path[128];
	struct sample s;

	sample_init(&s, f);
	write_image(f, &s.process);
	snprintf(path, sizeof(path), "%s/raw", f->top);
	assert_int_equal(flow_convert(f->dir, CONVERT_RAW, path), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		size_t len;
		_cleanup_free_ char *data =
			content_of(path, files[i].name, &len);

		assert_int_equal(len, files[i].n * PAGE_SIZE);
		assert_memory_equal(data, f->memory + files[i].page * PAGE_SIZE,
				    len);
	}
}

struct putter {
	struct image_writer *writer;
	const uint8_t *page;
	_Atomic unsigned n_added;
};

/* As the output thread: puts a page of each region as soon as it is there. */
static void *put_all(void *opaque)
{
	struct putter *p = opaque;

	for (unsigned i = 0; i < MANY;) {
		if (i == p->n_added)
			continue;
		if (image_writer_put_pages(p->writer, i, i % 2, 1,
					   p->page + i % 2 * PAGE_SIZE, NULL))
			return "failed";
		i++;
	}
	return NULL;
}

static void regions_may_be_many_and_come_late(void **state)
{
	struct fixture *f = *state;
	struct putter p = { .writer = begin(f), .page = f->memory };
	struct image *image;
	pthread_t thread;
	struct sample s;
	void *failed;

	sample_init(&s, f);
	assert_int_equal(pthread_create(&thread, NULL, put_all, &p), 0);
	for (size_t i = 0; i < MANY; i++) {
		add_region(p.writer, 0x10000 * (i + 1), 2);
		p.n_added++;
	}
	assert_int_equal(pthread_join(thread, &failed), 0);
	assert_null(failed);
	finish(p.writer, f, &s.process);

	assert_int_equal(image_open(&image, f->dir), 0);
	assert_int_equal(image_verify(image), 0);
	assert_int_equal(image->n_regions, MANY);
	for (size_t i = 0; i < MANY; i++) {
		assert_int_equal(image->regions[i].pages_offset,
				 (1 + 2 * i) * PAGE_SIZE);
		assert_int_equal(image->regions[i].n_runs, 1);
		assert_int_equal(image->regions[i].runs[0].first, i % 2);
	}
	image_close(image);
}

static void the_writer_lists_its_regions(void **state)
{
	struct fixture *f = *state;
	struct image_writer *w = begin(f);
	_cleanup_free_ struct image_region *regions = NULL;
	size_t n;

	assert_int_equal(image_writer_tail_offset(w), PAGE_SIZE);
	add_region(w, 0x1000, 3);
	add_region(w, 0x9000, 1);
	assert_int_equal(image_writer_list_regions(w, &regions, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(regions[1].address, 0x9000);
	assert_int_equal(regions[1].pages_offset, 4 * PAGE_SIZE);
	assert_int_equal(image_writer_tail_offset(w), 5 * PAGE_SIZE);
	image_writer_free(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_process_is_read_as_written),
		TEST(memory_core_holds_all_regions_packed),
		TEST(every_flipped_bit_is_found),
		TEST(a_wrong_length_of_memory_core_is_found),
		TEST(hostile_records_are_refused),
		TEST(a_string_with_nul_is_refused),
		TEST(regions_must_not_share_a_place),
		TEST(the_core_is_a_sparse_copy),
		TEST(the_core_streams_with_its_zeros),
		TEST(a_damaged_core_is_not_converted),
		TEST(raw_files_are_named_by_address),
		TEST(regions_may_be_many_and_come_late),
		TEST(the_writer_lists_its_regions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
