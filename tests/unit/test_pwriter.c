/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"

/*
 * Writing behind the caller's back, by io_uring and by threads: whatever
 * becomes of a write, its buffer is given back once, and not before.
 *
 * pwrite() is replaced (--wrap=pwrite) to be short now and then, where threads
 * and repeated writes use it.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"
#include "image/pwriter.h"

#define DEPTH	  8
#define N_BUFFERS 200
#define BUFFER	  (64 * KIB)

struct buffer {
	struct hold hold;
	uint8_t *data;
	uint64_t offset; /* in the file */
	size_t len;
	_Atomic unsigned n_released;
};

/* A file, what is to be written to it, and who does. */
struct job {
	bool uring;
	struct pwriter *writer;
	int fd, direct_fd; /* -1: no O_DIRECT here */
	struct buffer *buffers;
	uint8_t *memory; /* of all buffers */
};

static _Atomic bool short_writes;

ssize_t __real_pwrite64(int fd, const void *buf, size_t len, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t offset);

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	static _Atomic unsigned n;

	if (atomic_load(&short_writes)) {
		unsigned turn = atomic_fetch_add(&n, 1) % 4;

		if (turn == 1)
			len = len / 2 + 1;
		if (turn == 2) {
			errno = EINTR;
			return -1;
		}
	}
	return __real_pwrite64(fd, buf, len, offset);
}

static void note_release(struct hold *hold)
{
	struct buffer *buffer =
		(struct buffer *)((char *)hold - offsetof(struct buffer, hold));

	atomic_fetch_add(&buffer->n_released, 1);
	/* Whoever still reads it now writes garbage. */
	memset(buffer->data, 0xee, buffer->len);
}

static uint8_t content(uint64_t offset)
{
	return (uint8_t)(offset ^ offset >> 12 ^ 0x5a);
}

static void open_file(struct job *job, const char *dir)
{
	_cleanup_free_ char *path = NULL;

	assert_true(asprintf(&path, "%s/test-pwriter-XXXXXX", dir) > 0);
	job->fd = mkostemp(path, O_CLOEXEC);
	assert_true(job->fd >= 0);
	job->direct_fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
}

static const char *temporary_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir ? dir : "/tmp";
}

static struct job *job_new(const void *uring, const char *dir)
{
	struct job *job = calloc(1, sizeof(*job));

	job->uring = *(const bool *)uring;
	open_file(job, dir);
	job->buffers = calloc(N_BUFFERS, sizeof(*job->buffers));
	job->memory = aligned_alloc(PAGE_SIZE, N_BUFFERS * BUFFER);
	assert_int_equal(pwriter_new(&job->writer, DEPTH, job->uring), 0);
	if (job->uring && strcmp(pwriter_name(job->writer), "io_uring")) {
		print_message("io_uring is not allowed here\n");
		job->writer = pwriter_free(job->writer);
		skip();
	}
	assert_string_equal(pwriter_name(job->writer),
			    job->uring ? "io_uring" : "threads");
	return job;
}

static void job_free(struct job *job)
{
	job->writer = pwriter_free(job->writer);
	for (int i = 0; i < N_BUFFERS; i++)
		if (job->buffers[i].len)
			assert_int_equal(job->buffers[i].n_released, 1);
	close_fd(&job->fd);
	close_fd(&job->direct_fd);
	free(job->buffers);
	free(job->memory);
	free(job);
}

/* Buffer `i`, filled with what belongs to `offset`; the caller's reference is
 * dropped once it is submitted. `skew` makes O_DIRECT refuse it. */
static int submit(struct job *job, int i, uint64_t offset, size_t len,
		  size_t skew)
{
	struct buffer *buffer = &job->buffers[i];
	int fd = job->direct_fd >= 0 ? job->direct_fd : job->fd;
	int r;

	buffer->data = job->memory + (size_t)i * BUFFER + skew;
	buffer->offset = offset;
	buffer->len = len;
	for (size_t at = 0; at < len; at++)
		buffer->data[at] = content(offset + at);
	hold_init(&buffer->hold, note_release);
	r = pwriter_submit(job->writer, fd, job->fd, buffer->data, len, offset,
			   &buffer->hold);
	hold_put(&buffer->hold);
	return r;
}

static unsigned n_held(const struct job *job)
{
	unsigned n = 0;

	for (int i = 0; i < N_BUFFERS; i++)
		n += job->buffers[i].len && !job->buffers[i].n_released;
	return n;
}

static void check_content(const struct job *job)
{
	_cleanup_free_ uint8_t *got = malloc(BUFFER);

	for (int i = 0; i < N_BUFFERS; i++) {
		const struct buffer *buffer = &job->buffers[i];

		if (!buffer->len)
			continue;
		assert_int_equal(io_pread_full(job->fd, got, buffer->len,
					       buffer->offset),
				 0);
		for (size_t at = 0; at < buffer->len; at++)
			assert_int_equal(got[at], content(buffer->offset + at));
	}
}

/* Sizes and places at random, `odd` ones that O_DIRECT refuses among them. */
static void write_at_random(struct job *job, bool odd)
{
	srandom(1);
	for (int i = 0; i < N_BUFFERS; i++) {
		uint64_t slot = (uint64_t)(i * 37 % N_BUFFERS) * BUFFER;
		size_t len = (size_t)(1 + random() % 15) * PAGE_SIZE;
		size_t skew = 0;

		if (odd && random() % 2) {
			len -= (size_t)(random() % 4000);
			slot += (uint64_t)(random() % 100);
			skew = (size_t)(random() % 100);
		}
		assert_int_equal(submit(job, i, slot, len, skew), 0);
		assert_true(n_held(job) <= DEPTH);
		if (random() % 16 == 0)
			assert_true(pwriter_wait(job->writer) >= 0);
	}
	while (pwriter_wait(job->writer) > 0)
		;
	assert_int_equal(pwriter_wait(job->writer), 0);
	assert_int_equal(n_held(job), 0);
	check_content(job);
}

static void all_is_written(void **state)
{
	struct job *job = job_new(*state, temporary_dir());

	write_at_random(job, false);
	job_free(job);
}

static void misaligned_writes_go_through_the_cache(void **state)
{
	struct job *job = job_new(*state, temporary_dir());

	write_at_random(job, true);
	job_free(job);
}

static void short_writes_are_finished(void **state)
{
	struct job *job = job_new(*state, temporary_dir());

	atomic_store(&short_writes, true);
	write_at_random(job, true);
	atomic_store(&short_writes, false);
	job_free(job);
}

/* Nothing to give back. */
static void a_write_needs_no_hold(void **state)
{
	struct job *job = job_new(*state, temporary_dir());
	char got[6] = "";

	assert_int_equal(pwriter_submit(job->writer, job->fd, job->fd, "hello",
					6, 3, NULL),
			 0);
	pwriter_drain(job->writer);
	assert_int_equal(io_pread_full(job->fd, got, 6, 3), 0);
	assert_string_equal(got, "hello");
	job_free(job);
}

static void freeing_waits_for_what_is_under_way(void **state)
{
	struct job *job = job_new(*state, temporary_dir());

	for (int i = 0; i < DEPTH; i++)
		assert_int_equal(
			submit(job, i, (uint64_t)i * BUFFER, BUFFER, 0), 0);
	job->writer = pwriter_free(job->writer);
	assert_int_equal(n_held(job), 0);
	check_content(job);
	job_free(job);
}

/* The first error stays, whatever is asked for; buffers come back. */
static void expect_failure(struct job *job, int error)
{
	int r = 0, i;

	for (i = 0; !r && i < N_BUFFERS; i++)
		r = submit(job, i, (uint64_t)i * BUFFER, BUFFER, 0);
	while (!r || r == 1)
		r = pwriter_wait(job->writer);
	assert_int_equal(r, error);
	assert_int_equal(pwriter_wait(job->writer), error);
	if (i < N_BUFFERS)
		assert_int_equal(submit(job, i, 0, PAGE_SIZE, 0), error);
	pwriter_drain(job->writer);
	assert_int_equal(n_held(job), 0);
	pwriter_drain(job->writer);
	assert_int_equal(pwriter_wait(job->writer), error);
}

static void a_full_disk(void **state)
{
	char dir[] = "/tmp/test-pwriter-XXXXXX";
	struct job *job;

	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		print_message("cannot mount: %s\n", strerror(errno));
		skip();
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(mount("none", dir, "tmpfs", 0, "size=1m"), 0);
	job = job_new(*state, dir);
	expect_failure(job, -ENOSPC);
	job_free(job);
	umount(dir);
	rmdir(dir);
}

/* The write at the limit is done in part. */
static void a_file_that_may_not_grow(void **state)
{
	struct job *job = job_new(*state, temporary_dir());
	struct rlimit old, limit;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	limit = old;
	limit.rlim_cur = 10 * BUFFER + 3 * PAGE_SIZE;
	setrlimit(RLIMIT_FSIZE, &limit);
	expect_failure(job, -EFBIG);
	setrlimit(RLIMIT_FSIZE, &old);
	job_free(job);
}

static void a_descriptor_that_is_not_for_writing(void **state)
{
	struct job *job = job_new(*state, temporary_dir());

	close_fd(&job->direct_fd);
	close_fd(&job->fd);
	job->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	expect_failure(job, -EBADF);
	job_free(job);
}

static int forbid_uring(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { ARRAY_SIZE(code), code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) ? -errno : 0;
}

/* In a process of its own: a filter stays. Exits with what went wrong. */
static int write_without_uring(void)
{
	_cleanup_close_ int fd = memfd_create("test", MFD_CLOEXEC);
	struct pwriter *writer;
	char got[6] = "";

	if (forbid_uring())
		return 77;
	if (pwriter_new(&writer, DEPTH, true))
		return 1;
	if (strcmp(pwriter_name(writer), "threads"))
		return 2;
	if (pwriter_submit(writer, fd, fd, "hello", 6, 0, NULL) ||
	    pwriter_wait(writer) != 1)
		return 3;
	pwriter_free(writer);
	if (io_pread_full(fd, got, 6, 0) || strcmp(got, "hello"))
		return 4;
	return 0;
}

static void threads_where_io_uring_is_refused(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid)
		_exit(write_without_uring());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define BOTH(f)                                          \
	{ #f " (io_uring)", f, NULL, NULL, &uring },     \
	{                                                \
#f " (threads)", f, NULL, NULL, &threads \
	}

int main(void)
{
	static bool uring = true, threads = false;
	const struct CMUnitTest tests[] = {
		BOTH(all_is_written),
		BOTH(misaligned_writes_go_through_the_cache),
		BOTH(short_writes_are_finished),
		BOTH(a_write_needs_no_hold),
		BOTH(freeing_waits_for_what_is_under_way),
		BOTH(a_full_disk),
		BOTH(a_file_that_may_not_grow),
		BOTH(a_descriptor_that_is_not_for_writing),
		cmocka_unit_test(threads_where_io_uring_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
