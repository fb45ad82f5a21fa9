/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `info ramblock` as QEMU 7.2 and 10.0 print it, and as nobody should; and the
 * search for the structures, on ones built in this process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/result.h"
#include "base/util.h"
#include "qemu/ramblock.h"
#include "qemu/ramscan.h"
#include "sys/procfs.h"

#define HEAD \
	"              Block Name    PSize              Offset     Used Total\r\n"

static const char table_7_2[] =
	"              Block Name    PSize              Offset               Used              Total\r\n"
	"                  pc.ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000\r\n"
	"   0000:00:02.0/vga.vram    4 KiB  0x0000000010080000 0x0000000001000000 0x0000000001000000\r\n"
	"    /rom@etc/acpi/tables    4 KiB  0x0000000011100000 0x0000000000020000 0x0000000000200000\r\n"
	"                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000\r\n"
	"               my dimm 1    2 MiB  0x0000000020000000 0x0000000000200000 0x0000000000200000\r\n";

static const char table_10[] =
	"              Block Name    PSize              Offset               Used              Total                HVA  RO\n"
	"                  pc.ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000 0x00007f6233e00000  rw\n"
	"                            4 KiB  0x0000000030000000 0x0000000000000123 0x0000000000001000 0x00007f6133e00000  rw\n"
	"                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000 0x00007f62a1a00000  ro\n"
	"                     big    1 GiB  0x0000004000000000 0x0000000040000000 0x0000000040000000 0x00007f5233e00000  rw\n";

static void test_7_2(void **state)
{
	struct ram_blocks blocks;

	(void)state;
	assert_int_equal(ram_blocks_parse(table_7_2, &blocks), 0);
	assert_int_equal(blocks.n_blocks, 5);
	assert_string_equal(blocks.blocks[0].name, "pc.ram");
	assert_int_equal(blocks.blocks[0].used_length, 256 * MIB);
	assert_int_equal(blocks.blocks[0].host, 0);
	assert_string_equal(blocks.blocks[2].name, "/rom@etc/acpi/tables");
	assert_int_equal(blocks.blocks[2].offset, 0x11100000);
	assert_int_equal(blocks.blocks[2].used_length, 0x20000);
	assert_int_equal(blocks.blocks[2].max_length, 0x200000);
	assert_string_equal(blocks.blocks[4].name, "my dimm 1");
	assert_int_equal(blocks.blocks[4].page_size, 2 * MIB);
	assert_ptr_equal(ram_blocks_find(&blocks, "pc.bios"),
			 &blocks.blocks[3]);
	assert_null(ram_blocks_find(&blocks, "pc.bio"));
	ram_blocks_deinit(&blocks);
}

static void test_10(void **state)
{
	struct ram_blocks blocks;

	(void)state;
	assert_int_equal(ram_blocks_parse(table_10, &blocks), 0);
	/* The nameless one is not QEMU's to migrate. */
	assert_int_equal(blocks.n_blocks, 3);
	assert_int_equal(blocks.blocks[0].host, 0x7f6233e00000);
	assert_string_equal(blocks.blocks[1].name, "pc.bios");
	assert_int_equal(blocks.blocks[1].host, 0x7f62a1a00000);
	assert_int_equal(blocks.blocks[2].page_size, GIB);
	ram_blocks_deinit(&blocks);
}

static void check_bad(const char *text)
{
	struct ram_blocks blocks;

	assert_int_equal(ram_blocks_parse(text, &blocks), -EPROTO);
	assert_null(blocks.blocks);
	assert_int_equal(blocks.n_blocks, 0);
}

static void test_hostile_tables(void **state)
{
	char line[1024], name[300];
	size_t i;

	(void)state;
	check_bad("");
	check_bad("\n\n");
	check_bad("unknown command: 'info ramblock'\r\n");
	check_bad("Block Name");
	check_bad(HEAD);
	check_bad(HEAD "x\n");
	check_bad(HEAD "0x1000 0x1000 0x1000\n");
	/* a page size that is missing, zero, odd, huge */
	check_bad(HEAD "a 0x0 0x1000 0x1000\n");
	check_bad(HEAD "a 0 KiB 0x0 0x1000 0x1000\n");
	check_bad(HEAD "a 3 KiB 0x0 0x1000 0x1000\n");
	check_bad(HEAD "a 4 B 0x0 0x1000 0x1000\n");
	check_bad(HEAD "a -4 KiB 0x0 0x1000 0x1000\n");
	check_bad(HEAD "a 99999 KiB 0x0 0x1000 0x1000\n");
	check_bad(HEAD "a 4 XiB 0x0 0x1000 0x1000\n");
	/* numbers: no prefix, no digits, too many, not of whole pages, none */
	check_bad(HEAD "a 4 KiB 0 0x1000 0x1000\n");
	check_bad(HEAD "a 4 KiB 0x 0x1000 0x1000\n");
	check_bad(HEAD "a 4 KiB 0x0 0x00000000000001000 0x1000\n");
	check_bad(HEAD "a 4 KiB 0x0 0x10g0 0x1000\n");
	check_bad(HEAD "a 4 KiB 0x10 0x1000 0x1000\n");
	check_bad(HEAD "a 4 KiB 0x0 0x1001 0x2000\n");
	check_bad(HEAD "a 4 KiB 0x0 0x0 0x1000\n");
	/* used above total, ends beyond all addresses */
	check_bad(HEAD "a 4 KiB 0x0 0x2000 0x1000\n");
	check_bad(HEAD "a 4 KiB 0xfffffffffffff000 0x1000 0x2000\n");
	check_bad(HEAD "a 4 KiB 0x0 0x1000 0x2000 0xfffffffffffff000 rw\n");
	/* the same twice, overlapping */
	check_bad(HEAD "a 4 KiB 0x0 0x1000 0x1000\n"
		       "a 4 KiB 0x1000 0x1000 0x1000\n");
	check_bad(HEAD "a 4 KiB 0x0 0x1000 0x2000\n"
		       "b 4 KiB 0x1000 0x1000 0x1000\n");

	for (i = 0; i < sizeof(name) - 1; i++)
		name[i] = 'n';
	name[sizeof(name) - 1] = '\0';
	snprintf(line, sizeof(line), HEAD "%s 4 KiB 0x0 0x1000 0x1000\n", name);
	check_bad(line);
}

/* Any cut and any changed byte: no crash, and sane numbers if accepted. */
static void test_mutations(void **state)
{
	char text[sizeof(table_10)];
	struct ram_blocks blocks;
	size_t i, k;

	(void)state;
	for (i = 0; i < sizeof(text) - 1; i++) {
		memcpy(text, table_10, sizeof(text));
		text[i] = '\0';
		if (!ram_blocks_parse(text, &blocks))
			ram_blocks_deinit(&blocks);
		for (k = 1; k < 256; k += 13) {
			memcpy(text, table_10, sizeof(text));
			text[i] = (char)k;
			if (ram_blocks_parse(text, &blocks))
				continue;
			assert_true(blocks.n_blocks <= 5);
			assert_true(blocks.blocks[0].used_length <=
				    blocks.blocks[0].max_length);
			ram_blocks_deinit(&blocks);
		}
	}
}

/* As QEMU lays it out: see ramscan.h. */
struct fake_block {
	uint64_t rcu[2], mr, host, colo, offset, used, max, resized;
	uint32_t flags;
	char idstr[256];
	uint64_t le_next __attribute__((aligned(8)));
	uint64_t le_prev;
};

struct fake_qemu {
	uint64_t list_head;
	struct fake_block *fakes[2];
	void *ram[2];
};

static void fake_setup(struct fake_qemu *qemu)
{
	static const char *const names[] = { "pc.ram", "pc.bios" };
	uint64_t *link = &qemu->list_head;
	size_t i;

	for (i = 0; i < 2; i++) {
		struct fake_block *fake = calloc(1, sizeof(*fake));

		qemu->ram[i] = mmap(NULL, 64 * KIB, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		fake->host = (uintptr_t)qemu->ram[i];
		fake->offset = i * 0x10000;
		fake->used = 0x8000;
		fake->max = 0x10000;
		fake->flags = i ? 1u << 4 | 1u << 2 : 1u << 4 | 1u << 1;
		strcpy(fake->idstr, names[i]);
		fake->le_prev = (uintptr_t)link;
		*link = (uintptr_t)fake;
		link = &fake->le_next;
		qemu->fakes[i] = fake;
	}
}

static void fake_teardown(struct fake_qemu *qemu)
{
	size_t i;

	for (i = 0; i < 2; i++) {
		munmap(qemu->ram[i], 64 * KIB);
		free(qemu->fakes[i]);
	}
}

static int scan_self(struct ram_blocks *blocks)
{
	_cleanup_close_ int proc_fd = procfs_open(getpid());
	struct ramscan_stats stats;
	struct proc_maps maps;
	int r;

	assert_int_equal(procfs_read_maps(proc_fd, &maps), 0);
	r = ramscan_find(getpid(), proc_fd, &maps, blocks, &stats);
	assert_true(stats.bytes_read > 0);
	proc_maps_deinit(&maps);
	return r;
}

static const char fake_table[] = HEAD "pc.ram 4 KiB 0x0 0x8000 0x10000\n"
				      "pc.bios 4 KiB 0x10000 0x8000 0x10000\n";

static void test_scan(void **state)
{
	struct ram_blocks blocks;
	struct fake_qemu qemu;

	(void)state;
	fake_setup(&qemu);
	assert_int_equal(ram_blocks_parse(fake_table, &blocks), 0);
	assert_int_equal(scan_self(&blocks), 0);
	assert_int_equal(blocks.blocks[0].host, (uintptr_t)qemu.ram[0]);
	assert_int_equal(blocks.blocks[1].host, (uintptr_t)qemu.ram[1]);
	assert_true(blocks.blocks[0].shared && blocks.blocks[0].migratable);
	assert_false(blocks.blocks[0].resizeable);
	assert_true(blocks.blocks[1].resizeable);
	assert_false(blocks.blocks[1].shared);

	assert_int_equal(ramscan_recheck(getpid(), &blocks), 0);
	qemu.fakes[1]->used = 0x9000;
	assert_int_equal(ramscan_recheck(getpid(), &blocks), -ESTALE);
	ram_blocks_deinit(&blocks);
	fake_teardown(&qemu);
}

/* Each of these alone makes a structure no hit. */
static void test_scan_refuses(void **state)
{
	struct ram_blocks blocks;
	struct fake_qemu qemu;
	struct fake_block good;

	(void)state;
	fake_setup(&qemu);
	good = *qemu.fakes[1];

	for (int i = 0; i < 6; i++) {
		*qemu.fakes[1] = good;
		assert_int_equal(ram_blocks_parse(fake_table, &blocks), 0);
		switch (i) {
		case 0: /* a host that is not mapped */
			qemu.fakes[1]->host = 0x1000;
			break;
		case 1: /* a neighbour that does not point back */
			qemu.fakes[0]->le_next = 0;
			break;
		case 2:
			qemu.fakes[0]->le_next = (uintptr_t)qemu.fakes[1];
			qemu.fakes[1]->le_prev = 8;
			break;
		case 3:
			qemu.fakes[1]->max = 0x20000;
			break;
		case 4:
			strcpy(qemu.fakes[1]->idstr, "pc.bios2");
			break;
		default: /* not where `info ramblock` says it is */
			blocks.blocks[1].host = 0x7000;
		}
		assert_int_equal(scan_self(&blocks), RESULT_UNSUPPORTED);
		ram_blocks_deinit(&blocks);
	}
	fake_teardown(&qemu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_7_2),
		cmocka_unit_test(test_10),
		cmocka_unit_test(test_hostile_tables),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_scan_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
