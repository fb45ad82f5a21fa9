/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mapped-ram file, byte by byte, read back by a reader that was written
 * from the same description of the format and shares no code with the writer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "qemu/mapped_ram.h"

#define N_BLOCKS 4
#define N_PAGES	 700 /* no multiple of a bitmap's words */
#define N_HUGE	 (5 * GIB / 4096)

static struct ram_block block_array[N_BLOCKS] = {
	{ .name = "pc.ram", .used_length = N_PAGES * 4096, .migratable = true },
	{ .name = "local", .used_length = 4096 },
	{ .name = "huge", .used_length = N_HUGE * 4096, .migratable = true },
	{ .name = "rom", .used_length = 2 * 4096, .migratable = true },
};
static const struct ram_blocks blocks = { block_array, N_BLOCKS };

static const uint8_t devstate[] = { 'Q', 'E', 'V', 'M', 0,   0,	  0,   3,
				    4,	 'd', 'e', 'v', 'i', 'c', 'e', 0 };

/* A sparse file in memory. */
struct file {
	int fd;
	uint64_t written; /* bytes */
	uint64_t at;	  /* the reader's */
	int error;
};

static int file_write(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct file *file = opaque;

	if (file->error)
		return file->error;
	assert_int_equal(pwrite(file->fd, buf, len, (off_t)at), len);
	file->written += len;
	return 0;
}

static void get_bytes(struct file *file, void *buf, size_t len)
{
	assert_int_equal(pread(file->fd, buf, len, (off_t)file->at), len);
	file->at += len;
}

static uint64_t get(struct file *file, unsigned n_bytes)
{
	uint64_t value = 0;
	uint8_t byte;

	while (n_bytes--) {
		get_bytes(file, &byte, 1);
		value = value << 8 | byte;
	}
	return value;
}

static void expect_bytes(struct file *file, const void *expected, size_t len)
{
	uint8_t buf[256];

	get_bytes(file, buf, len);
	assert_memory_equal(buf, expected, len);
}

#define expect_text(file, text) expect_bytes(file, text, sizeof(text) - 1)

static void setup_file(struct file *file)
{
	*file = (struct file){ .fd = memfd_create("test", MFD_CLOEXEC) };
	assert_true(file->fd >= 0);
}

static struct mapped_ram *begin(struct file *file)
{
	struct savevm_sink sink = { file_write, file };
	struct mapped_ram *ram = NULL;

	assert_int_equal(mapped_ram_begin(&sink, "pc-q35-10.0", &blocks, &ram),
			 0);
	return ram;
}

/* Up to the first block; the id of section "ram". */
static uint32_t expect_frame(struct file *file)
{
	uint32_t id;

	expect_text(file, "QEVM\0\0\0\3");
	expect_text(file, "\7\0\0\0\13pc-q35-10.0");
	expect_text(file, "\5\32configuration/capabilities\0\0\0\1");
	expect_text(file, "\0\0\0\1\12mapped-ram");
	expect_text(file, "\1");
	id = (uint32_t)get(file, 4);
	assert_true(id);
	expect_text(file, "\3ram\0\0\0\0\0\0\0\4");
	return id;
}

struct place {
	uint64_t bitmap, pages;
};

static struct place expect_block(struct file *file, const char *name,
				 uint64_t length)
{
	uint64_t n_words = (length / 4096 + 63) / 64;
	struct place place;

	assert_int_equal(get(file, 1), strlen(name));
	expect_bytes(file, name, strlen(name));
	assert_int_equal(get(file, 8), length);
	assert_int_equal(get(file, 4), 1);
	assert_int_equal(get(file, 8), 4096);
	place.bitmap = get(file, 8);
	place.pages = get(file, 8);
	assert_int_equal(place.bitmap, file->at);
	assert_int_equal(place.pages % MIB, 0);
	assert_true(place.pages >= place.bitmap + 8 * n_words);
	assert_true(place.pages < place.bitmap + 8 * n_words + MIB);
	file->at = place.pages + length;
	return place;
}

static void expect_end(struct file *file, uint32_t id)
{
	struct stat st;

	assert_int_equal(get(file, 8), 0x10);
	assert_int_equal(get(file, 1), 0x7e);
	assert_int_equal(get(file, 4), id);
	expect_bytes(file, devstate + 8, sizeof(devstate) - 9);
	expect_text(file, "\0\6\0\0\0\0");
	assert_int_equal(fstat(file->fd, &st), 0);
	assert_int_equal(st.st_size, file->at);
}

static uint64_t word(const struct file *file, uint64_t bitmap, uint64_t page)
{
	uint8_t bytes[8];
	uint64_t value = 0;

	assert_int_equal(
		pread(file->fd, bytes, 8, (off_t)(bitmap + page / 64 * 8)), 8);
	for (int i = 7; i >= 0; i--)
		value = value << 8 | bytes[i];
	return value;
}

static void test_layout(void **state)
{
	struct place ram_at, huge_at, rom_at;
	struct mapped_ram *ram;
	struct file file;
	uint64_t at;
	uint32_t id;

	(void)state;
	setup_file(&file);
	ram = begin(&file);
	/* Not in order, and between two blocks. */
	assert_int_equal(mapped_ram_pages(ram, 0, 4096 * 690, 10, &at), 0);
	assert_int_equal(mapped_ram_pages(ram, 3, 4096, 1, &at), 0);
	assert_int_equal(mapped_ram_pages(ram, 0, 4096, 1, &at), 0);
	assert_int_equal(mapped_ram_end(ram, devstate, sizeof(devstate)), 0);
	mapped_ram_free(ram);

	id = expect_frame(&file);
	assert_int_equal(get(&file, 8), (N_PAGES + N_HUGE + 2) * 4096 | 0x04);
	ram_at = expect_block(&file, "pc.ram", N_PAGES * 4096);
	huge_at = expect_block(&file, "huge", N_HUGE * 4096);
	rom_at = expect_block(&file, "rom", 2 * 4096);
	expect_end(&file, id);

	assert_int_equal(word(&file, ram_at.bitmap, 0), 2);
	for (unsigned page = 64; page < 640; page += 64)
		assert_int_equal(word(&file, ram_at.bitmap, page), 0);
	assert_int_equal(word(&file, ram_at.bitmap, 640),
			 ((uint64_t)1 << 60) - ((uint64_t)1 << 50));
	assert_int_equal(word(&file, huge_at.bitmap, 0), 0);
	assert_int_equal(word(&file, rom_at.bitmap, 0), 2);
	close(file.fd);
}

/* Where pages go, and that a bitmap is written only where it has bits. */
static void test_sparse(void **state)
{
	struct mapped_ram *ram;
	struct place huge_at;
	struct file file;
	uint64_t first, last, ram_at;

	(void)state;
	setup_file(&file);
	ram = begin(&file);
	assert_int_equal(mapped_ram_pages(ram, 0, 0, N_PAGES, &ram_at), 0);
	assert_int_equal(mapped_ram_pages(ram, 2, 0, 1, &first), 0);
	assert_int_equal(mapped_ram_pages(ram, 2, 5 * GIB - 4096, 1, &last), 0);
	assert_int_equal(mapped_ram_end(ram, devstate, sizeof(devstate)), 0);
	mapped_ram_free(ram);

	expect_frame(&file);
	get(&file, 8);
	assert_int_equal(expect_block(&file, "pc.ram", N_PAGES * 4096).pages,
			 ram_at);
	huge_at = expect_block(&file, "huge", N_HUGE * 4096);
	assert_int_equal(first, huge_at.pages);
	assert_int_equal(last, huge_at.pages + 5 * GIB - 4096);
	assert_int_equal(word(&file, huge_at.bitmap, 0), 1);
	for (uint64_t page = 64; page < N_HUGE - 64; page += 64)
		assert_int_equal(word(&file, huge_at.bitmap, page), 0);
	assert_int_equal(word(&file, huge_at.bitmap, N_HUGE - 1),
			 (uint64_t)1 << 63);
	/* The whole one would be N_HUGE / 8 bytes. */
	assert_true(file.written < N_HUGE / 8 * 3 / 4);
	close(file.fd);
}

static void test_out_of_range(void **state)
{
	struct mapped_ram *ram;
	struct file file;
	uint64_t at = 1234;

	(void)state;
	setup_file(&file);
	ram = begin(&file);
	assert_int_equal(mapped_ram_pages(ram, 4, 0, 1, &at), -ERANGE);
	assert_int_equal(mapped_ram_pages(ram, SIZE_MAX, 0, 1, &at), -ERANGE);
	assert_int_equal(mapped_ram_pages(ram, 1, 0, 1, &at), -ERANGE);
	assert_int_equal(mapped_ram_pages(ram, 0, 100, 1, &at), -ERANGE);
	assert_int_equal(mapped_ram_pages(ram, 3, 4096, 2, &at), -ERANGE);
	assert_int_equal(mapped_ram_pages(ram, 3, 3 * 4096, 0, &at), -ERANGE);
	assert_int_equal(mapped_ram_pages(ram, 3, 0, SIZE_MAX, &at), -ERANGE);
	assert_int_equal(mapped_ram_pages(ram, 3, -4096ull, 1, &at), -ERANGE);
	assert_int_equal(at, 1234);
	assert_int_equal(mapped_ram_end(ram, devstate, sizeof(devstate) - 1),
			 -EPROTO);
	mapped_ram_free(ram);
	close(file.fd);
}

static int begin_with(struct ram_block *array, size_t n_blocks)
{
	struct ram_blocks hostile = { array, n_blocks };
	struct mapped_ram *ram = NULL;
	struct savevm_sink sink;
	struct file file;
	int r;

	setup_file(&file);
	sink = (struct savevm_sink){ file_write, &file };
	r = mapped_ram_begin(&sink, "pc", &hostile, &ram);
	assert_null(ram);
	close(file.fd);
	return r;
}

static void test_no_file_is_so_long(void **state)
{
	struct ram_block two[2] = {
		{ .name = "a", .used_length = 1ull << 62, .migratable = true },
		{ .name = "b", .used_length = 1ull << 62, .migratable = true },
	};
	char name[RAM_BLOCK_NAME_MAX + 2] = { 0 };

	(void)state;
	assert_int_equal(begin_with(two, 2), -EINVAL);
	two[0].used_length = INT64_MAX & ~4095ull;
	assert_int_equal(begin_with(two, 1), -EFBIG);
	two[0].used_length = UINT64_MAX & ~4095ull;
	assert_int_equal(begin_with(two, 1), -EINVAL);
	two[0].used_length = 100;
	assert_int_equal(begin_with(two, 1), -EINVAL);
	two[0].used_length = 4096;
	memset(name, 'n', sizeof(name) - 1);
	two[0].name = name;
	assert_int_equal(begin_with(two, 1), -EINVAL);
}

static void test_sink_fails(void **state)
{
	struct mapped_ram *ram = NULL;
	struct savevm_sink sink;
	struct file file;
	uint64_t at;

	(void)state;
	setup_file(&file);
	sink = (struct savevm_sink){ file_write, &file };
	ram = begin(&file);
	assert_int_equal(mapped_ram_pages(ram, 0, 0, 1, &at), 0);
	file.error = -ENOSPC;
	assert_int_equal(mapped_ram_end(ram, devstate, sizeof(devstate)),
			 -ENOSPC);
	mapped_ram_free(ram);
	assert_int_equal(mapped_ram_begin(&sink, "pc", &blocks, &ram), -ENOSPC);
	close(file.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_out_of_range),
		cmocka_unit_test(test_no_file_is_so_long),
		cmocka_unit_test(test_sink_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
