/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/confined.h"
#include "sys/landlock.h"
#include "sys/sandbox.h"

struct fixture {
	char top[64];
	char image[80], out[80], other[80]; /* directories, each with a file */
};

static void make_dir(char *path, size_t size, const char *top, const char *name)
{
	char file[128];
	int fd;

	snprintf(path, size, "%s/%s", top, name);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(file, sizeof(file), "%s/file", path);
	fd = open(file, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->top, "/tmp/snapuffd-sandbox-XXXXXX");
	assert_non_null(mkdtemp(f->top));
	make_dir(f->image, sizeof(f->image), f->top, "image");
	make_dir(f->out, sizeof(f->out), f->top, "out");
	make_dir(f->other, sizeof(f->other), f->top, "other");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", f->top);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) > 0;
}

/* 0, or -errno. */
static int try_open(const char *dir, const char *name, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int errno_of(long r)
{
	return r < 0 ? -errno : 0;
}

/* What is forbidden, in a child: cmocka could not tell of it. The number of the
 * line that is wrong. */
#define CHECK(condition)                           \
	do {                                       \
		if (!(condition))                  \
			_exit(__LINE__ % 255 + 1); \
	} while (0)

static void check_calls(void)
{
	char *argv[] = { (char *)"/bin/true", NULL };

	CHECK(errno_of(socket(AF_UNIX, SOCK_STREAM, 0)) == -EPERM);
	CHECK(errno_of(socket(AF_INET, SOCK_STREAM, 0)) == -EPERM);
	CHECK(errno_of(execv(argv[0], argv)) == -EPERM);
	CHECK(errno_of(syscall(SYS_fork)) == -EPERM);
	CHECK(errno_of(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) == -EPERM);
	CHECK(errno_of(kill(getppid(), 0)) == -EPERM);
	CHECK(errno_of(syscall(SYS_ptrace, 0, 0, 0, 0)) == -EPERM);
	CHECK(errno_of(syscall(SYS_unlink, "/nonexistent")) == -EPERM);
	CHECK(errno_of(syscall(SYS_open, "/dev/null", O_RDONLY)) == -EPERM);
	CHECK(errno_of(prctl(PR_SET_DUMPABLE, 0)) == -EPERM);
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
}

/* A file that was opened before can be read on. */
static void check_status(int fd)
{
	_cleanup_free_ char *text = NULL;

	CHECK(!io_read_all(fd, MIB, &text, NULL));
	CHECK(strstr(text, "\nNoNewPrivs:\t1\n"));
	CHECK(strstr(text, "\nSeccomp:\t2\n"));
}

static void in_child(void (*check)(const struct fixture *f),
		     const struct fixture *f)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		check(f);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* The line, but for its hundreds. */
	assert_int_equal(status, 0);
}

static void read_only(const struct fixture *f)
{
	const struct sandbox sandbox = { .read = f->image };
	int fd = open("/proc/self/status", O_RDONLY);

	CHECK(!sandbox_enter(&sandbox));
	CHECK(!try_open(f->image, "file", O_RDONLY));
	CHECK(!try_open(f->image, ".", O_RDONLY | O_DIRECTORY));
	CHECK(try_open(f->image, "file", O_WRONLY));
	CHECK(try_open(f->image, "file", O_RDONLY | O_TRUNC));
	CHECK(try_open(f->image, "new", O_RDONLY | O_CREAT));
	CHECK(try_open(f->image, ".", O_RDWR | O_TMPFILE));
	if (has_landlock()) {
		CHECK(try_open(f->other, "file", O_RDONLY) == -EACCES);
		CHECK(try_open("/etc", "passwd", O_RDONLY) == -EACCES);
		CHECK(try_open(f->image, "../other/file", O_RDONLY) == -EACCES);
	}
	check_status(fd);
	check_calls();
}

static void an_image_can_be_read_and_nothing_else(void **state)
{
	if (!sandbox_is_whole())
		skip();
	in_child(read_only, *state);
}

static void writing(const struct fixture *f)
{
	const struct sandbox sandbox = { .read = f->image, .write = f->out };

	CHECK(!sandbox_enter(&sandbox));
	CHECK(!try_open(f->image, "file", O_RDONLY));
	CHECK(!try_open(f->out, "new", O_WRONLY | O_CREAT | O_EXCL));
	if (has_landlock()) {
		CHECK(try_open(f->image, "new", O_WRONLY | O_CREAT) == -EACCES);
		CHECK(try_open(f->other, "new", O_WRONLY | O_CREAT) == -EACCES);
		CHECK(try_open(f->other, "file", O_WRONLY) == -EACCES);
	}
	check_calls();
}

static void files_are_made_in_one_directory_only(void **state)
{
	if (!sandbox_is_whole())
		skip();
	in_child(writing, *state);
}

/* Alone, without seccomp: what each of the two forbids is forbidden twice. */
static void landlock_alone(const struct fixture *f)
{
	int read_fd = open(f->image, O_PATH | O_DIRECTORY);

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!landlock_restrict(read_fd, -1));
	CHECK(!try_open(f->image, "file", O_RDONLY));
	CHECK(try_open(f->image, "file", O_WRONLY) == -EACCES);
	CHECK(try_open(f->image, "new", O_WRONLY | O_CREAT) == -EACCES);
	CHECK(try_open(f->other, "file", O_RDONLY) == -EACCES);
	CHECK(unlink(f->other) && errno == EACCES);
}

static void landlock_holds_without_seccomp(void **state)
{
	if (!has_landlock() || !sandbox_is_whole())
		skip();
	in_child(landlock_alone, *state);
}

static void a_missing_directory_is_told(void **state)
{
	const struct sandbox sandbox = { .read = "/nonexistent" };

	(void)state;
	assert_int_equal(sandbox_enter(&sandbox), -ENOENT);
}

static int give_back(void *data)
{
	return *(int *)data;
}

static int look_around(void *data)
{
	const struct fixture *f = data;

	return try_open(f->other, "file", O_RDONLY) ? RESULT_INCONSISTENT : 0;
}

static int die(void *data)
{
	signal(SIGSEGV, SIG_DFL);
	*(volatile int *)data = 1;
	return 0;
}

static void a_confined_child_tells_its_result(void **state)
{
	static const int results[] = {
		0, RESULT_FAILED, RESULT_UNSUPPORTED, -EINTR, -EPIPE, -ENOMEM
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(results); i++)
		assert_int_equal(confined_run(f->image, NULL, give_back,
					      (void *)&results[i]),
				 results[i]);
	if (has_landlock() && sandbox_is_whole())
		assert_int_equal(confined_run(f->image, NULL, look_around, f),
				 RESULT_INCONSISTENT);
	assert_int_equal(confined_run("/nonexistent", NULL, give_back,
				      (void *)&results[0]),
			 RESULT_FAILED);
}

static void a_confined_child_that_dies_is_a_failure(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(confined_run(f->image, NULL, die, NULL),
			 RESULT_FAILED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			an_image_can_be_read_and_nothing_else, setup, teardown),
		cmocka_unit_test_setup_teardown(
			files_are_made_in_one_directory_only, setup, teardown),
		cmocka_unit_test_setup_teardown(landlock_holds_without_seccomp,
						setup, teardown),
		cmocka_unit_test(a_missing_directory_is_told),
		cmocka_unit_test_setup_teardown(
			a_confined_child_tells_its_result, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_confined_child_that_dies_is_a_failure, setup,
			teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
