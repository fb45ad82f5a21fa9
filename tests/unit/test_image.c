/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

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
#include "base/util.h"
#include "image/reader.h"
#include "image/writer.h"
#include "snapuffd/image-format.h"

#define N_PAGES 1000

static const struct image_writer_options no_options;

struct fixture {
	char top[64];
	char dir[80];
	uint8_t *memory;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->top, "/tmp/snapuffd-image-XXXXXX");
	assert_non_null(mkdtemp(f->top));
	snprintf(f->dir, sizeof(f->dir), "%s/image", f->top);

	f->memory = aligned_alloc(PAGE_SIZE, N_PAGES * PAGE_SIZE);
	memset(f->memory, 0, N_PAGES * PAGE_SIZE);
	srandom(7);
	for (size_t i = 0; i < N_PAGES; i++)
		if (i % 5 && i / 100 != 3)
			for (size_t j = 0; j < PAGE_SIZE; j += 8)
				f->memory[i * PAGE_SIZE + j] =
					(uint8_t)random();
	/* One byte, the last of its page, is data too. */
	f->memory[350 * PAGE_SIZE + PAGE_SIZE - 1] = 1;
	*state = f;
	return 0;
}

static void remove_tree(const char *path)
{
	char command[256];

	snprintf(command, sizeof(command), "rm -rf '%s'", path);
	assert_int_equal(system(command), 0);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	remove_tree(f->top);
	free(f->memory);
	free(f);
	return 0;
}

static struct image_writer *begin(const struct fixture *f)
{
	struct image_region regions[] = {
		{ .name = "pc.ram",
		  .address = 0x7f0000000000,
		  .length = N_PAGES * PAGE_SIZE,
		  .page_size = 4096,
		  .backing = IMAGE_BACKING_ANON },
		{ .name = "/rom@etc/../tables",
		  .address = 0x7f1000000000,
		  .length = PAGE_SIZE,
		  .page_size = 4096,
		  .backing = IMAGE_BACKING_SHARED,
		  .file = "/memfd:x (deleted)" },
	};
	struct image_writer *w;

	assert_int_equal(image_writer_new(&w, f->dir, &no_options), 0);
	for (size_t i = 0; i < ARRAY_SIZE(regions); i++)
		assert_int_equal(image_writer_add_region(w, &regions[i]), 0);
	return w;
}

static void write_image(const struct fixture *f)
{
	char *unsafe[] = { "one writes", "another does" };
	struct image_inventory inventory = {
		.version = IMAGE_VERSION,
		.kind = IMAGE_KIND_QEMU,
		.complete = true,
		.tool_version = "test",
		.host = "host",
		.kernel = "6.1",
		.pid = 412,
		.unsafe = unsafe,
		.n_unsafe = ARRAY_SIZE(unsafe),
	};
	char *argv[] = { "qemu-system-x86_64", "-m", "4" };
	struct image_ram_block block = {
		.idstr = "pc.ram",
		.used_length = N_PAGES * PAGE_SIZE,
		.max_length = N_PAGES * PAGE_SIZE,
		.page_size = 4096,
		.migratable = true,
		.region = 0,
	};
	struct image_machine machine = {
		.qemu_version = "7.2.22",
		.machine_class = "pc-i440fx-7.2",
		.running = true,
		.argv = argv,
		.n_args = ARRAY_SIZE(argv),
		.blocks = &block,
		.n_blocks = 1,
		.domain_xml = "<domain/>",
	};
	struct image_stats stats = { .pause_ns = 3000000,
				     .pages_total = N_PAGES + 1 };
	struct image_writer *w = begin(f);

	histogram_record(&stats.faults, 5000);
	/* Out of order, as faults come. */
	for (uint64_t first = 900; first <= 900; first -= 100)
		assert_int_equal(image_writer_put_pages(
					 w, 0, first, 100,
					 f->memory + first * PAGE_SIZE, NULL),
				 0);
	assert_int_equal(image_writer_put_machine(w, &machine), 0);
	assert_int_equal(
		image_writer_put_file(w, IMAGE_DEVICE_STATE, "QEVM", 4), 0);
	assert_int_equal(image_writer_commit(w, &inventory, &stats), 0);
	image_writer_free(w);
}

static void what_was_written_is_read(void **state)
{
	struct fixture *f = *state;
	uint8_t *buf = malloc(IMAGE_RUN_MAX_PAGES * PAGE_SIZE);
	uint8_t *got = calloc(N_PAGES, PAGE_SIZE);
	struct image_region *region;
	struct image *image;
	struct stat st;
	int fd;

	write_image(f);
	assert_int_equal(image_open(&image, f->dir), 0);
	assert_int_equal(image_verify(image), 0);
	assert_int_equal(image->n_regions, 2);
	assert_string_equal(image->machine.argv[2], "4");
	assert_string_equal(image->machine.domain_xml, "<domain/>");
	assert_int_equal(image->inventory.n_unsafe, 2);
	assert_string_equal(image->inventory.unsafe[1], "another does");
	assert_int_equal(image->stats.pause_ns, 3000000);
	assert_int_equal(image->stats.faults.n, 1);
	assert_string_equal(image->regions[1].pages_file,
			    "rom@etc-..-tables.pages");
	assert_string_equal(image->regions[1].file, "/memfd:x (deleted)");

	region = &image->regions[0];
	fd = image_open_pages(image, region);
	assert_true(fd >= 0);
	for (size_t i = 0; i < region->n_runs; i++) {
		assert_int_equal(image_read_run(image, region, fd,
						&region->runs[i], buf),
				 0);
		memcpy(got + region->runs[i].first * PAGE_SIZE, buf,
		       region->runs[i].n * PAGE_SIZE);
	}
	assert_memory_equal(got, f->memory, N_PAGES * PAGE_SIZE);

	/* Zero pages take no room. */
	assert_int_equal(fstat(fd, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 <= 730 * PAGE_SIZE);
	assert_int_equal(fstatat(image->dir_fd, ".", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	close(fd);
	image_close(image);
	free(buf);
	free(got);
}

static bool exists(const char *path)
{
	return !access(path, F_OK);
}

static void an_image_that_is_given_up_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct image_writer *w = begin(f);
	char partial[96];

	snprintf(partial, sizeof(partial), "%s.partial", f->dir);
	assert_int_equal(image_writer_put_pages(w, 0, 0, 100, f->memory, NULL),
			 0);
	assert_true(exists(partial));
	image_writer_free(w);
	assert_false(exists(partial));
	assert_false(exists(f->dir));
}

static void existing_and_busy_directories_are_left_alone(void **state)
{
	struct fixture *f = *state;
	struct image_writer *first = begin(f), *second;
	char partial[96];

	snprintf(partial, sizeof(partial), "%s.partial", f->dir);
	assert_int_equal(image_writer_new(&second, f->dir, &no_options),
			 -EBUSY);
	assert_true(exists(partial));
	image_writer_free(first);

	write_image(f);
	assert_int_equal(image_writer_new(&second, f->dir, &no_options),
			 -EEXIST);
}

static void what_a_killed_dump_left_is_taken_over(void **state)
{
	struct fixture *f = *state;
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s.partial", f->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s.partial/pc.ram.pages", f->dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
	write_image(f);
	assert_true(exists(f->dir));
}

/* 0 if the image opens and verifies. */
static int read_all(const char *dir)
{
	struct image *image = NULL;
	int r = image_open(&image, dir);

	if (!r)
		r = image_verify(image);
	image_close(image);
	return r;
}

static void flip(const char *path, off_t at, uint8_t bit)
{
	int fd = open(path, O_RDWR);
	uint8_t byte;

	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= (uint8_t)(1 << bit);
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* Every file; each byte of the small ones, some of the pages', holes too. */
static void every_flipped_bit_is_found(void **state)
{
	struct fixture *f = *state;
	struct dirent *entry;
	DIR *dir;

	write_image(f);
	assert_int_equal(read_all(f->dir), 0);
	dir = opendir(f->dir);
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char path[400];
		struct stat st;
		off_t step;

		if (*entry->d_name == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", f->dir, entry->d_name);
		assert_int_equal(stat(path, &st), 0);
		step = st.st_size / 97 + 1;
		for (off_t at = 0; at < st.st_size; at += step) {
			flip(path, at, (uint8_t)(at % 8));
			assert_int_equal(read_all(f->dir), RESULT_FAILED);
			flip(path, at, (uint8_t)(at % 8));
		}
	}
	closedir(dir);
	assert_int_equal(read_all(f->dir), 0);
}

static void every_truncation_is_found(void **state)
{
	struct fixture *f = *state;
	struct dirent *entry;
	DIR *dir;

	write_image(f);
	dir = opendir(f->dir);
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		_cleanup_free_ char *data = NULL;
		char path[400];
		size_t len;
		int fd;

		if (*entry->d_name == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", f->dir, entry->d_name);
		assert_int_equal(io_read_file(AT_FDCWD, path, GIB, &data, &len),
				 0);
		for (size_t cut = 0; cut < len; cut += len / 13 + 1) {
			assert_int_equal(truncate(path, (off_t)cut), 0);
			assert_int_equal(read_all(f->dir), RESULT_FAILED);
			fd = open(path, O_WRONLY | O_TRUNC);
			assert_int_equal(io_write_full(fd, data, len), 0);
			close(fd);
		}
	}
	closedir(dir);
	assert_int_equal(read_all(f->dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_written_is_read, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			an_image_that_is_given_up_leaves_nothing, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			existing_and_busy_directories_are_left_alone, setup,
			teardown),
		cmocka_unit_test_setup_teardown(
			what_a_killed_dump_left_is_taken_over, setup, teardown),
		cmocka_unit_test_setup_teardown(every_flipped_bit_is_found,
						setup, teardown),
		cmocka_unit_test_setup_teardown(every_truncation_is_found,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
