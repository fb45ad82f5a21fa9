/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"
#include "elfcore/elfcore.h"
#include "image/codec.h"
#include "image/writer.h"
#include "snapuffd/image-format.h"

/*
 * fuzz-seeds DIR: writes what the fuzz targets of binary formats start from,
 * DIR/TARGET/NAME. The program's own writers make it, so that it is always of
 * the format that is read.
 */

#define N_PAGES 4

static void require(bool condition, const char *what)
{
	if (condition)
		return;
	perror(what);
	exit(1);
}

/* Record files and others, each a part of one input. */
struct seed {
	FILE *file;
	bool has_part;
};

static struct seed begin(const char *top, const char *target, const char *name)
{
	char path[512];
	struct seed seed = {};

	snprintf(path, sizeof(path), "%s/%s", top, target);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%s", top, target, name);
	seed.file = fopen(path, "w");
	require(seed.file, path);
	return seed;
}

static void put(struct seed *seed, const void *data, size_t len)
{
	if (seed->has_part)
		fputs("\n%%\n", seed->file);
	seed->has_part = true;
	require(fwrite(data, 1, len, seed->file) == len, "write");
}

static void put_text(struct seed *seed, const char *text)
{
	put(seed, text, strlen(text));
}

static void end(struct seed *seed)
{
	require(!fclose(seed->file), "write");
}

/* A record without its magic, as the targets want it. */
static void put_record(struct seed *seed, struct record *record)
{
	put(seed, record->data + sizeof(uint32_t),
	    record->len - sizeof(uint32_t));
	record_deinit(record);
}

/* The same of a file of an image. */
static void put_record_file(struct seed *seed, int dir_fd, const char *name)
{
	struct record record = {};

	require(!io_read_file(dir_fd, name, MIB, (char **)&record.data,
			      &record.len),
		name);
	put_record(seed, &record);
}

static void put_file(struct seed *seed, int dir_fd, const char *name)
{
	_cleanup_free_ char *data = NULL;
	size_t len;

	require(!io_read_file(dir_fd, name, MIB, &data, &len), name);
	put(seed, data, len);
}

static struct image_machine make_machine(void)
{
	static char *argv[] = { (char *)"qemu-system-x86_64", (char *)"-m",
				(char *)"4", (char *)"-drive",
				(char *)"file=/d.qcow2,if=virtio" };
	static struct image_ram_block blocks[] = {
		{ .idstr = (char *)"pc.ram",
		  .used_length = N_PAGES * PAGE_SIZE,
		  .max_length = N_PAGES * PAGE_SIZE,
		  .page_size = PAGE_SIZE,
		  .migratable = true },
		{ .idstr = (char *)"/rom@etc/acpi",
		  .offset = GIB,
		  .used_length = PAGE_SIZE,
		  .max_length = 2 * PAGE_SIZE,
		  .page_size = PAGE_SIZE,
		  .resizeable = true,
		  .region = -1 },
	};
	static struct image_disk disk = {
		.file = (char *)"/d.qcow2",
		.device = (char *)"virtio0",
		.node_name = (char *)"#block1",
		.format = (char *)"qcow2",
		.has_stat = true,
		.size = 4096,
		.mtime_ns = 5,
		.overlay = (char *)"/o.qcow2",
	};
	static struct image_memory_device dimm = {
		.id = (char *)"d1",
		.memdev = (char *)"m1",
		.address = 4 * GIB,
		.size = GIB,
		.slot = 1,
	};

	return (struct image_machine){
		.qemu_version = (char *)"7.2.22",
		.machine_class = (char *)"pc-i440fx-7.2",
		.running = true,
		.cwd = (char *)"/",
		.domain_xml = (char *)"<domain type='qemu'><name>a</name>"
				      "<uuid>5</uuid></domain>\n",
		.argv = argv,
		.n_args = ARRAY_SIZE(argv),
		.blocks = blocks,
		.n_blocks = ARRAY_SIZE(blocks),
		.disks = &disk,
		.n_disks = 1,
		.memory_devices = &dimm,
		.n_memory_devices = 1,
	};
}

static struct image_process make_process(void)
{
	static uint8_t blob[576], auxv[32] = { 6, [9] = 16 };
	static gid_t groups[] = { 4, 5 };
	static char *argv[] = { (char *)"it", (char *)"" };
	static char *env[] = { (char *)"A=\xff" };
	static struct image_mapping mappings[] = {
		{ .start = 0x400000,
		  .end = 0x402000,
		  .prot = PROT_READ | PROT_EXEC,
		  .dev_major = 8,
		  .inode = 77,
		  .name = (char *)"/bin/it",
		  .held = 0x1000,
		  .build_id = (char *)"00ffaa" },
		{ .start = 0x404000,
		  .end = 0x404000 + N_PAGES * PAGE_SIZE,
		  .prot = PROT_READ | PROT_WRITE,
		  .name = (char *)"[heap]",
		  .held = N_PAGES * PAGE_SIZE },
	};
	static struct image_thread threads[] = {
		{ .tid = 412,
		  .name = (char *)"it",
		  .regs = blob,
		  .regs_len = 216,
		  .xstate = blob,
		  .xstate_len = sizeof(blob) },
		{ .tid = 413,
		  .ns_tid = 2,
		  .name = (char *)"two",
		  .regs = blob,
		  .regs_len = 216,
		  .xstate = blob,
		  .xstate_len = sizeof(blob),
		  .siginfo = blob,
		  .siginfo_len = 128 },
	};
	static struct image_fd fd = { .fd = 3,
				      .path = (char *)"/dev/null",
				      .flags = O_RDWR,
				      .position = 9 };

	return (struct image_process){
		.pid = 412,
		.ppid = 1,
		.pgrp = 412,
		.sid = 400,
		.groups = groups,
		.n_groups = ARRAY_SIZE(groups),
		.state = 'S',
		.nice = -7,
		.name = (char *)"it",
		.exe = (char *)"/bin/it",
		.cwd = (char *)"/",
		.argv = argv,
		.n_args = ARRAY_SIZE(argv),
		.env = env,
		.n_env = ARRAY_SIZE(env),
		.auxv = auxv,
		.auxv_len = sizeof(auxv),
		.coredump_filter = 0x33,
		.mappings = mappings,
		.n_mappings = ARRAY_SIZE(mappings),
		.threads = threads,
		.n_threads = ARRAY_SIZE(threads),
		.fds = &fd,
		.n_fds = 1,
	};
}

static struct image_stats make_stats(void)
{
	struct image_stats stats = {
		.pause_ns = 3000000,
		.captured_ns = 7000000,
		.duration_ns = 9000000,
		.pages_total = N_PAGES,
		.pages_data = 2,
	};

	for (uint64_t ns = 100; ns < GIB; ns *= 3)
		histogram_record(&stats.faults, ns);
	return stats;
}

static struct image_region make_region(bool is_process)
{
	return (struct image_region){
		.name = (char *)(is_process ? "404000" : "pc.ram"),
		.address = is_process ? 0x404000 : 0x7f0000000000,
		.length = N_PAGES * PAGE_SIZE,
		.page_size = PAGE_SIZE,
		.backing = IMAGE_BACKING_ANON,
	};
}

static void put_process(struct image_writer *writer)
{
	_cleanup_(image_frame_deinit) struct image_frame frame = {};
	struct image_process process = make_process();
	_cleanup_free_ struct image_region *regions = NULL;
	size_t n;

	require(!image_writer_list_regions(writer, &regions, &n), "regions");
	require(!elfcore_build(&process, regions, n,
			       image_writer_tail_offset(writer), &frame),
		"core");
	require(!image_writer_put_process(writer, &process, &frame), "process");
}

static void put_machine(struct image_writer *writer)
{
	static const uint8_t devices[] = { 'Q', 'E', 'V', 'M', 0, 0, 0,
					   3,	4,   1,	  2,   3, 0 };
	struct image_machine machine = make_machine();

	require(!image_writer_put_machine(writer, &machine), "machine");
	require(!image_writer_put_file(writer, IMAGE_DEVICE_STATE, devices,
				       sizeof(devices)),
		"devices");
}

/* A whole image of two pages of data, to take to pieces. */
static void write_image(const char *dir, bool is_process)
{
	const struct image_writer_options options = { .no_uring = true,
						      .no_direct = true };
	struct image_region region = make_region(is_process);
	char *unsafe[] = { (char *)"one writes" };
	struct image_inventory inventory = {
		.version = IMAGE_VERSION,
		.kind = is_process ? IMAGE_KIND_PROCESS : IMAGE_KIND_QEMU,
		.complete = true,
		.tool_version = (char *)"seed",
		.host = (char *)"host",
		.kernel = (char *)"6.1",
		.pid = 412,
		.unsafe = unsafe,
		.n_unsafe = 1,
	};
	struct image_stats stats = make_stats();
	_cleanup_image_writer_ struct image_writer *writer = NULL;
	uint8_t *memory = aligned_alloc(PAGE_SIZE, N_PAGES * PAGE_SIZE);

	require(memory, "memory");
	memset(memory, 0, N_PAGES * PAGE_SIZE);
	memset(memory + PAGE_SIZE, 'x', 2 * PAGE_SIZE);
	require(!image_writer_new(&writer, dir, &options), dir);
	if (is_process)
		require(!image_writer_use_core(writer), "core");
	require(!image_writer_add_region(writer, &region), "region");
	require(!image_writer_put_pages(writer, 0, 0, N_PAGES, memory, NULL),
		"pages");
	if (is_process)
		put_process(writer);
	else
		put_machine(writer);
	require(!image_writer_commit(writer, &inventory, &stats), "commit");
	free(memory);
}

/* fuzz_image.c has the order. */
static void seed_image(const char *top, int dir_fd, bool is_process)
{
	struct seed seed = begin(top, "image", is_process ? "process" : "qemu");

	put_record_file(&seed, dir_fd, IMAGE_INVENTORY);
	put_text(&seed, is_process ? "0" : "16384");
	if (is_process)
		put_text(&seed, "");
	else
		put_file(&seed, dir_fd, "pc.ram.pages");
	if (is_process)
		put_file(&seed, dir_fd, IMAGE_CORE);
	else
		put_text(&seed, "");
	if (is_process)
		put_text(&seed, "");
	else
		put_file(&seed, dir_fd, IMAGE_DEVICE_STATE);
	put_record_file(&seed, dir_fd, IMAGE_REGIONS);
	put_record_file(&seed, dir_fd, IMAGE_PAGEMAP);
	put_record_file(&seed, dir_fd, IMAGE_STATS);
	if (!is_process)
		put_record_file(&seed, dir_fd, IMAGE_MACHINE);
	else
		put_text(&seed, "");
	if (is_process) {
		put_record_file(&seed, dir_fd, IMAGE_PROCESS);
		put_record_file(&seed, dir_fd, IMAGE_MAPPINGS);
		put_record_file(&seed, dir_fd, IMAGE_THREADS);
	}
	end(&seed);
}

static void seed_records(const char *top, int dir_fd, bool is_process)
{
	const char *name = is_process ? "process" : "qemu";
	struct seed seed = begin(top, "inventory", name);

	put_record_file(&seed, dir_fd, IMAGE_INVENTORY);
	end(&seed);
	seed = begin(top, "regions", name);
	put_record_file(&seed, dir_fd, IMAGE_REGIONS);
	put_record_file(&seed, dir_fd, IMAGE_PAGEMAP);
	end(&seed);
	seed = begin(top, "stats", name);
	put_record_file(&seed, dir_fd, IMAGE_STATS);
	end(&seed);
	seed = begin(top, is_process ? "process" : "machine", name);
	if (is_process) {
		put_record_file(&seed, dir_fd, IMAGE_PROCESS);
		put_record_file(&seed, dir_fd, IMAGE_MAPPINGS);
		put_record_file(&seed, dir_fd, IMAGE_THREADS);
	} else {
		put_record_file(&seed, dir_fd, IMAGE_MACHINE);
	}
	end(&seed);
}

/* The start of our own program, with its notes. */
static void seed_elf(const char *top)
{
	static char bytes[2048];
	_cleanup_close_ int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct seed seed = begin(top, "elf", "exe");

	require(fd >= 0 && read(fd, bytes, sizeof(bytes)) > 0, "exe");
	put(&seed, bytes, sizeof(bytes));
	end(&seed);
}

static void seed_code(const char *top)
{
	static const uint8_t gadgets[] = {
		0x89, 0x03, 0x5b, 0xc3, 0xb8, 15,   0,	  0,	0,    0x0f,
		0x05, 0xb8, 35,	  0,	0,    0,    15,	  0x05, 0x48, 0,
		0x0f, 0x05, 0xc3, 0x90, 0x90, 0x90, 0x90, 1,	2,    3,
	};
	struct seed seed = begin(top, "code", "gadgets");
	static uint8_t xstate[2696];

	memcpy(xstate, gadgets, sizeof(gadgets));
	xstate[464] = 7;
	xstate[512] = 7;
	put(&seed, gadgets, sizeof(gadgets));
	end(&seed);
	seed = begin(top, "code", "xstate");
	put(&seed, xstate, sizeof(xstate));
	end(&seed);
}

static void seed_fdpass(const char *top)
{
	struct seed seed = begin(top, "fdpass", "one");

	put_text(&seed, "\x01\x01\x01\x10"
			"x");
	end(&seed);
	seed = begin(top, "fdpass", "many");
	put_text(&seed, "\x20\x08\x10\x10"
			"too many");
	end(&seed);
}

int main(int argc, char **argv)
{
	const char *top = argc > 1 ? argv[1] : "seeds";
	char scratch[] = "/tmp/snapuffd-seeds-XXXXXX", dir[64], command[64];

	require(!mkdir(top, 0777) || errno == EEXIST, top);
	require(mkdtemp(scratch), scratch);
	for (int is_process = 0; is_process < 2; is_process++) {
		_cleanup_close_ int dir_fd = -1;

		snprintf(dir, sizeof(dir), "%s/%d", scratch, is_process);
		write_image(dir, is_process);
		dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		seed_image(top, dir_fd, is_process);
		seed_records(top, dir_fd, is_process);
	}
	snprintf(command, sizeof(command), "rm -rf '%s'", scratch);
	require(!system(command), scratch);
	seed_elf(top);
	seed_code(top);
	seed_fdpass(top);
	return 0;
}
