/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs that are run, and what they may not do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/deny.h"
#include "sys/run.h"

#define SH(command) ((char *const[]){ "sh", "-c", command, NULL })

static void test_run(void **state)
{
	char *text = NULL;

	(void)state;
	assert_int_equal(run_program(SH("echo a; echo b >&2"), 64, &text), 0);
	assert_string_equal(text, "a\nb\n");
	free(text);
	text = NULL;
	assert_int_equal(run_program(SH("echo no; exit 3"), 64, &text), 1);
	assert_string_equal(text, "no\n");
	free(text);
	text = NULL;
	assert_int_equal(run_program(SH("kill -9 $$"), 64, &text), 1);
	free(text);
	text = NULL;
	assert_int_equal(
		run_program((char *const[]){ "/nonexistent", NULL }, 64, &text),
		-ENOENT);
	assert_int_equal(run_program(SH("yes"), 64, &text), -EFBIG);
	assert_null(text);
}

/* In a child: an exit code that says what went wrong. */
static int punch(int fd)
{
	const int hole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	if (fallocate(fd, hole, 0, 4096))
		return 1;
	if (deny_punching())
		return 2;
	if (!fallocate(fd, hole, 0, 4096) || errno != EOPNOTSUPP)
		return 3;
	if (!fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096) ||
	    errno != EOPNOTSUPP)
		return 4;
	/* Nothing else is refused. */
	if (fallocate(fd, 0, 0, 8192) || write(fd, "x", 1) != 1)
		return 5;
	return 0;
}

static void test_deny_punching(void **state)
{
	int fd = memfd_create("test", MFD_CLOEXEC), status;
	pid_t pid;

	(void)state;
	assert_int_equal(ftruncate(fd, 8192), 0);
	pid = fork();
	if (!pid)
		_exit(punch(fd));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_run),
		cmocka_unit_test(test_deny_punching),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
