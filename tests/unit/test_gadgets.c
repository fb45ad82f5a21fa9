/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/util.h"
#include "parasite/arch-x86_64.h"

#define CODE_LEN (512 * KIB)

struct form {
	const char *code;
	size_t len;
};

#define FORM(code)                     \
	{                              \
		code, sizeof(code) - 1 \
	}

static const struct form calls[] = {
	FORM("\x0f\x05\xc3"),
	FORM("\x0f\x05\xf3\xc3"),
};

static const struct form sigreturns[] = {
	FORM("\x48\xc7\xc0\x0f\0\0\0\x0f\x05"),
	FORM("\xb8\x0f\0\0\0\x0f\x05"),
	FORM("\x48\xb8\x0f\0\0\0\0\0\0\0\x0f\x05"),
	FORM("\x31\xc0\xb0\x0f\x0f\x05"),
	FORM("\x6a\x0f\x58\x0f\x05"),
};

/* A mapping of a file that holds both, at these offsets. */
static int find(const struct form *call, size_t call_at,
		const struct form *sigreturn, size_t sigreturn_at,
		struct arch_gadgets *g, uint64_t *start)
{
	uint8_t *code = mmap(NULL, CODE_LEN, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct proc_map map = { .range = { (uintptr_t)code,
					   (uintptr_t)code + CODE_LEN },
				.read = true,
				.exec = true,
				.inode = 1,
				.path = "/bin/program" };
	struct proc_maps maps = { .maps = &map, .n_maps = 1 };
	int r;

	assert_ptr_not_equal(code, MAP_FAILED);
	memset(code, 0x90, CODE_LEN);
	if (call)
		memcpy(code + call_at, call->code, call->len);
	if (sigreturn)
		memcpy(code + sigreturn_at, sigreturn->code, sigreturn->len);
	r = arch_find_gadgets(getpid(), &maps, g);
	*start = (uintptr_t)code;
	munmap(code, CODE_LEN);
	return r;
}

static void test_forms(void **state)
{
	/* The second is where the scan's chunks meet. */
	static const size_t places[] = { 1001, 256 * KIB - 3, CODE_LEN - 12 };
	struct arch_gadgets g;
	uint64_t start;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		for (size_t j = 0; j < ARRAY_SIZE(sigreturns); j++)
			for (size_t k = 0; k < ARRAY_SIZE(places); k++) {
				assert_int_equal(find(&calls[i], 64,
						      &sigreturns[j], places[k],
						      &g, &start),
						 0);
				assert_int_equal(g.syscall_ret, start + 64);
				assert_int_equal(g.sigreturn,
						 start + places[k]);
				assert_int_equal(g.store, 0);
			}
}

static void test_none(void **state)
{
	struct arch_gadgets g;
	uint64_t start;

	(void)state;
	assert_int_equal(find(&calls[0], 64, NULL, 0, &g, &start), -ENOENT);
	assert_int_equal(find(NULL, 0, &sigreturns[0], 64, &g, &start),
			 -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_none),
	};

	return cmocka_run_group_tests_name("gadgets", tests, NULL, NULL);
}
