/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/optlist.h"

static void assert_prints(const struct optlist *list, const char *expected)
{
	char *text = optlist_print(list);

	assert_string_equal(text, expected);
	free(text);
}

/* What is not changed comes back as it was. */
static void test_round_trip(void **state)
{
	static const char *const texts[] = {
		"",
		"unix:/a,,b.sock,server=on,wait=off",
		"file=/x,if=virtio,format=raw",
		"socket,id=c,path=/q,server,nowait",
		"q35,accel=kvm:tcg,memory-backend=ram0",
		"a=",
		"user,id=n,hostfwd=tcp::1-:2,hostfwd=tcp::3-:4",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		struct optlist list;

		assert_int_equal(optlist_init(&list, texts[i], NULL), 0);
		assert_prints(&list, texts[i]);
		optlist_deinit(&list);
	}
}

static void test_get(void **state)
{
	struct optlist list;

	(void)state;
	assert_int_equal(optlist_init(&list, "socket,id=c,server,wait=off,id=d",
				      "backend"),
			 0);
	assert_string_equal(optlist_first(&list), "socket");
	assert_string_equal(optlist_get(&list, "id"), "d");
	assert_string_equal(optlist_get(&list, "server"), "");
	assert_null(optlist_get(&list, "path"));
	assert_true(optlist_is_on(&list, "server", false));
	assert_false(optlist_is_on(&list, "wait", true));
	assert_true(optlist_is_on(&list, "mux", true));
	optlist_deinit(&list);

	assert_int_equal(optlist_init(&list, "type=pc,accel=tcg", "type"), 0);
	assert_string_equal(optlist_first(&list), "pc");
	optlist_deinit(&list);
	assert_int_equal(optlist_init(&list, "file=x", NULL), 0);
	assert_null(optlist_first(&list));
	optlist_deinit(&list);
}

static void test_change(void **state)
{
	struct optlist list;

	(void)state;
	assert_int_equal(
		optlist_init(&list, "user,hostfwd=a,id=n,hostfwd=b", "type"),
		0);
	optlist_remove(&list, "hostfwd");
	optlist_set(&list, "id", "a,b");
	optlist_set(&list, "restrict", "on");
	optlist_set_first(&list, "tap");
	assert_int_equal(optlist_error(&list), 0);
	assert_prints(&list, "tap,id=a,,b,restrict=on");
	optlist_deinit(&list);

	assert_int_equal(optlist_init(&list, "accel=tcg", NULL), 0);
	optlist_set_first(&list, "pc-q35-7.2");
	assert_prints(&list, "pc-q35-7.2,accel=tcg");
	optlist_deinit(&list);
}

static void test_json(void **state)
{
	static const char *const broken[] = {
		"{",
		"{}x",
		"{\"a\":1.5}",
		"{\"a\":1,\"a\":2}",
	};
	struct optlist list;
	char deep[256] = "";

	(void)state;
	assert_int_equal(
		optlist_init(
			&list,
			"{\"size\":4096,\"qom-type\":\"memory-backend-ram\","
			"\"id\":\"r,0\",\"share\":false,\"a\":{\"b\":[1,"
			"\"x\"]}}",
			"qom-type"),
		0);
	assert_prints(&list, "memory-backend-ram,size=4096,id=r,,0,share=off,"
			     "a.b.0=1,a.b.1=x");
	optlist_deinit(&list);

	for (size_t i = 0; i < sizeof(broken) / sizeof(*broken); i++) {
		assert_int_equal(optlist_init(&list, broken[i], NULL), -EINVAL);
		optlist_deinit(&list);
	}
	for (size_t i = 0; i < 40; i++)
		strcat(deep, "{\"a\":");
	strcat(deep, "1");
	for (size_t i = 0; i < 40; i++)
		strcat(deep, "}");
	assert_int_equal(optlist_init(&list, deep, NULL), -EINVAL);
	optlist_deinit(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_change),
		cmocka_unit_test(test_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
