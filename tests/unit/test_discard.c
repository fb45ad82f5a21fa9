/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"
#include "world.h"

/*
 * A target that discards its memory while it is captured: what was there at the
 * instant is captured all the same. And one that forks.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/result.h"
#include "capture/capture.h"
#include "sys/pagemap.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/vmio.h"

#define N_RUNS	     10
#define N_DISCARDERS 2
#define N_WRITERS    2
#define N_THREADS    (N_DISCARDERS + N_WRITERS)
#define MAX_AREAS    4
#define AREA_LEN     (6 * MIB)

struct area {
	pid_t pid;
	uint8_t *at;
	size_t len;
	uint8_t *expected, *got;
	int advice; /* by which it is discarded */
};

struct world {
	struct capture *capture;
	bool is_lost; /* the capture was given up */
	struct self self;
	struct area areas[MAX_AREAS]; /* by region */
	unsigned n_areas;

	pthread_t threads[N_THREADS];
	pthread_rwlock_t frozen;
	_Atomic bool stop;
	_Atomic unsigned n_started;
	_Atomic uint64_t n_rounds[N_THREADS];
};

struct child {
	pid_t pid;
	struct self self;
};

static int sink_put(void *opaque, unsigned region, uint64_t first, uint64_t n,
		    const void *data, struct hold *hold)
{
	struct world *w = opaque;

	(void)hold;
	assert_true(region < w->n_areas);
	assert_true((first + n) * PAGE_SIZE <= w->areas[region].len);
	memcpy(w->areas[region].got + first * PAGE_SIZE, data, n * PAGE_SIZE);
	return 0;
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	struct capture_config config = {
		.mappings_change = true,
		.buffer_bytes = 16 * MIB,
		.granule_bytes = 64 * KIB,
		.sink = { .put = sink_put, .opaque = w },
	};
	pthread_rwlockattr_t attr;

	close(open_uffd(&config.markers));
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&w->frozen, &attr);
	w->self = (struct self){ -1, -1, -1 };
	assert_int_equal(capture_new(&w->capture, &config), 0);
	return w;
}

static void world_free(struct world *w)
{
	w->capture = capture_free(w->capture);
	for (unsigned i = 0; i < w->n_areas; i++) {
		free(w->areas[i].expected);
		free(w->areas[i].got);
	}
	self_close(&w->self);
	pthread_rwlock_destroy(&w->frozen);
	free(w);
}

static unsigned add_space(struct world *w, pid_t pid, const struct self *self,
			  int uffd)
{
	struct capture_space space = {
		.pid = pid,
		.pidfd = self->pidfd,
		.pagemap_fd = self->pagemap_fd,
		.mem_fd = -1,
		.uffd = uffd,
	};
	int r = capture_add_space(w->capture, &space);

	assert_true(r >= 0);
	return (unsigned)r;
}

static void add_self(struct world *w)
{
	bool markers;

	self_open(&w->self);
	add_space(w, getpid(), &w->self, open_uffd(&markers));
}

static struct area *add_area(struct world *w, unsigned space, pid_t pid,
			     const struct memory *memory, uint8_t *at,
			     int advice)
{
	struct area *area = &w->areas[w->n_areas++];
	struct region_desc desc = {
		.space = space,
		.range = { (uintptr_t)at, (uintptr_t)at + memory->len },
		.page_size = PAGE_SIZE,
		.fd = memory->fd,
		.fd_offset = memory->fd_offset,
		.shared = memory->fd >= 0,
		.file_id = memory->fd >= 0,
	};

	*area = (struct area){
		.pid = pid,
		.at = at,
		.len = memory->len,
		.expected = calloc(1, memory->len),
		.got = calloc(1, memory->len),
		.advice = advice,
	};
	assert_int_equal(capture_add_region(w->capture, &desc), 0);
	return area;
}

/* By the kernel: to sanitizers this is no race. */
static void look(struct world *w)
{
	for (unsigned i = 0; i < w->n_areas; i++)
		assert_int_equal(vm_read(w->areas[i].pid,
					 (uintptr_t)w->areas[i].at,
					 w->areas[i].expected, w->areas[i].len),
				 0);
}

static void check(const struct world *w)
{
	for (unsigned i = 0; i < w->n_areas; i++) {
		const struct area *area = &w->areas[i];
		size_t n_wrong = 0;

		for (size_t at = 0; at < area->len; at += PAGE_SIZE)
			n_wrong += !!memcmp(area->expected + at, area->got + at,
					    PAGE_SIZE);
		assert_int_equal(n_wrong, 0);
	}
}

static void stamp(uint8_t *at, size_t n_pages, uint64_t seed)
{
	for (size_t i = 0; i < n_pages; i++)
		for (size_t j = 0; j < 2; j++)
			__atomic_store_n((uint64_t *)(at + i * PAGE_SIZE) +
						 j * 511,
					 seed + i * 2 + j, __ATOMIC_RELAXED);
}

/* Discards, and now and then makes something of it anew. */
static void discard_some(const struct area *area, uint64_t *seed)
{
	size_t n = area->len / PAGE_SIZE, n_pages;
	uint8_t *at;

	n_pages = next_random(seed) % 96 + 1;
	at = area->at + next_random(seed) % (n - n_pages) * PAGE_SIZE;
	if (madvise(at, n_pages * PAGE_SIZE, area->advice))
		abort();
	if (*seed % 4)
		stamp(at, n_pages, *seed);
}

static void *live_thread(void *data)
{
	static _Atomic uint64_t seeds = 88172645463325252;
	struct world *w = data;
	uint64_t seed = atomic_fetch_add(&seeds, 7919);
	unsigned me = atomic_fetch_add(&w->n_started, 1);

	while (!atomic_load(&w->stop)) {
		const struct area *area;

		pthread_rwlock_rdlock(&w->frozen);
		area = &w->areas[next_random(&seed) % w->n_areas];
		if (me < N_DISCARDERS)
			discard_some(area, &seed);
		else
			stamp(area->at + seed % (area->len / PAGE_SIZE) *
						 PAGE_SIZE,
			      1, seed);
		pthread_rwlock_unlock(&w->frozen);
		atomic_fetch_add(&w->n_rounds[me], 1);
	}
	return NULL;
}

static void start_threads(struct world *w)
{
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(
			pthread_create(&w->threads[i], NULL, live_thread, w),
			0);
}

/* Fails if one of them waits for good. */
static void stop_threads(struct world *w)
{
	for (int i = 0; i < N_THREADS; i++) {
		uint64_t before = atomic_load(&w->n_rounds[i]);

		for (int j = 0; atomic_load(&w->n_rounds[i]) < before + 2;
		     j++) {
			assert_true(j < 100000);
			usleep(100);
		}
	}
	atomic_store(&w->stop, true);
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(w->threads[i], NULL);
}

/* Where several discard flat out the engine's patience may end before it has
 * found who it was: then it says so, which is right as well, but rare. */
static void finish(struct world *w)
{
	int r;

	/* So that most is discarded before the scanner comes by. */
	usleep(3000);
	r = capture_run(w->capture);
	if (!r)
		r = capture_drain(w->capture);
	w->is_lost = r == RESULT_INCONSISTENT;
	if (!w->is_lost)
		assert_int_equal(r, 0);
}

/* Never wrong, and mostly right; the sum over all runs of a test. */
static void judge(struct world *w, unsigned *n_lost)
{
	if (w->is_lost)
		++*n_lost;
	else
		check(w);
}

static void assert_mostly_right(unsigned n_lost)
{
	if (n_lost)
		print_message("%u of %u were given up\n", n_lost, N_RUNS);
	assert_true(n_lost <= N_RUNS / 2);
}

static void capture_all(struct world *w)
{
	assert_int_equal(capture_arm(w->capture), 0);
	assert_int_equal(capture_settle(w->capture), 0);
	pthread_rwlock_wrlock(&w->frozen);
	assert_int_equal(capture_rearm(w->capture), 0);
	look(w);
	pthread_rwlock_unlock(&w->frozen);
	finish(w);
}

static void own_memory(enum memory_kind kind, int advice)
{
	unsigned n_lost = 0;

	for (int run = 0; run < N_RUNS; run++) {
		struct world *w = world_new();
		struct memory memory;

		if (!memory_map(&memory, kind, AREA_LEN, 5))
			fail();
		stamp(memory.at, memory.len / PAGE_SIZE, 1);
		add_self(w);
		add_area(w, 0, getpid(), &memory, memory.at, advice);
		start_threads(w);
		capture_all(w);
		stop_threads(w);
		judge(w, &n_lost);
		world_free(w);
		memory_unmap(&memory);
	}
	assert_mostly_right(n_lost);
}

static void small_pages(void **state)
{
	(void)state;
	own_memory(ANON_SMALL, MADV_DONTNEED);
}

static void huge_pages(void **state)
{
	(void)state;
	own_memory(ANON_HUGE, MADV_DONTNEED);
}

static void lazily_freed(void **state)
{
	(void)state;
	own_memory(ANON_SMALL, MADV_FREE);
}

static void shared_memory_stays_in_its_file(void **state)
{
	(void)state;
	own_memory(MEMFD, MADV_DONTNEED);
}

/* A hole in a file is one in all that map it. */
static void holes_in_a_file_mapped_twice(void **state)
{
	unsigned n_lost = 0;

	(void)state;
	for (int run = 0; run < N_RUNS; run++) {
		struct world *w = world_new();
		struct memory memory;
		uint8_t *twin;

		assert_true(memory_map(&memory, MEMFD, AREA_LEN, 0));
		twin = mmap(NULL, memory.len, PROT_READ | PROT_WRITE,
			    MAP_SHARED, memory.fd, (off_t)memory.fd_offset);
		assert_true(twin != MAP_FAILED);
		stamp(memory.at, memory.len / PAGE_SIZE, 1);
		add_self(w);
		add_area(w, 0, getpid(), &memory, memory.at, MADV_REMOVE);
		add_area(w, 0, getpid(), &memory, twin, MADV_REMOVE);
		start_threads(w);
		capture_all(w);
		stop_threads(w);
		judge(w, &n_lost);
		world_free(w);
		munmap(twin, memory.len);
		memory_unmap(&memory);
	}
	assert_mostly_right(n_lost);
}

/* A process of its own, with threads that are at it. */
static void live(int to_parent, struct world *w)
{
	bool markers;
	int uffd = open_uffd(&markers);

	/* Also when a check fails. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	start_threads(w);
	if (write(to_parent, &uffd, sizeof(uffd)) != sizeof(uffd))
		_exit(1);
	for (;;)
		pause();
}

static void start_child(struct world *w, struct child *child,
			const struct memory *memory)
{
	struct world *lives = calloc(1, sizeof(*lives));
	int fds[2], uffd;
	unsigned space;

	pthread_rwlock_init(&lives->frozen, NULL);
	lives->n_areas = 1;
	lives->areas[0] = (struct area){ .at = memory->at,
					 .len = memory->len,
					 .advice = MADV_DONTNEED };
	assert_int_equal(pipe(fds), 0);
	child->pid = fork();
	if (!child->pid)
		live(fds[1], lives);
	close(fds[1]);
	assert_int_equal(read(fds[0], &uffd, sizeof(uffd)), sizeof(uffd));
	close(fds[0]);
	free(lives);
	child->self.proc_fd = procfs_open(child->pid);
	child->self.pidfd = pidfd_from_pid(child->pid);
	child->self.pagemap_fd = pagemap_open(child->self.proc_fd);
	uffd = pidfd_take_fd(child->self.pidfd, uffd);
	assert_true(uffd >= 0);
	space = add_space(w, child->pid, &child->self, uffd);
	add_area(w, space, child->pid, memory, memory->at, 0);
}

static void stop_child(const struct child *child)
{
	int status;

	kill(child->pid, SIGSTOP);
	assert_int_equal(waitpid(child->pid, &status, WUNTRACED), child->pid);
	assert_true(WIFSTOPPED(status));
}

static void end_child(struct child *child)
{
	kill(child->pid, SIGKILL);
	waitpid(child->pid, NULL, 0);
	self_close(&child->self);
}

static void two_processes(void **state)
{
	unsigned n_lost = 0;

	(void)state;
	for (int run = 0; run < N_RUNS; run++) {
		struct world *w = world_new();
		struct child children[2];
		struct memory memory;

		assert_true(memory_map(&memory, ANON_SMALL, AREA_LEN, 5));
		stamp(memory.at, memory.len / PAGE_SIZE, 1);
		for (int i = 0; i < 2; i++)
			start_child(w, &children[i], &memory);
		assert_int_equal(capture_arm(w->capture), 0);
		assert_int_equal(capture_settle(w->capture), 0);
		for (int i = 0; i < 2; i++)
			stop_child(&children[i]);
		assert_int_equal(capture_rearm(w->capture), 0);
		look(w);
		for (int i = 0; i < 2; i++)
			kill(children[i].pid, SIGCONT);
		finish(w);
		judge(w, &n_lost);
		for (int i = 0; i < 2; i++)
			end_child(&children[i]);
		world_free(w);
		memory_unmap(&memory);
	}
	assert_mostly_right(n_lost);
}

#define UFFD_WP ((uint64_t)1 << 57)

/* Nothing is protected here, and what is written is there. */
static void write_as_child(const struct memory *memory)
{
	_cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY);
	size_t n = memory->len / PAGE_SIZE;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < n; i++) {
		uint8_t *at = memory->at + i * PAGE_SIZE;
		uint64_t word;

		if (pread(fd, &word, sizeof(word),
			  (off_t)((uintptr_t)at / PAGE_SIZE * sizeof(word))) !=
			    sizeof(word) ||
		    word & UFFD_WP)
			_exit(1);
		stamp(at, 1, i + 7);
		if (*(uint64_t *)at != i + 7)
			_exit(2);
	}
	_exit(0);
}

/* The C library holds its locks meanwhile; but who reads the event of it is a
 * thread of this process, and may need them. */
static pid_t fork_raw(void)
{
	return (pid_t)syscall(SYS_fork);
}

/* A child that is forked while its parent is protected is not, waits for
 * nobody, and changes nothing of what is captured. */
static void a_fork_is_free(void **state)
{
	struct capture_stats *stats = calloc(1, sizeof(*stats));

	(void)state;
	for (unsigned kind = ANON_SMALL; kind <= ANON_HUGE; kind++) {
		struct world *w = world_new();
		struct memory memory;
		int status;
		pid_t pid;

		assert_true(memory_map(&memory, kind, AREA_LEN, 5));
		stamp(memory.at, memory.len / PAGE_SIZE, 1);
		add_self(w);
		add_area(w, 0, getpid(), &memory, memory.at, 0);
		assert_int_equal(capture_arm(w->capture), 0);
		assert_int_equal(capture_settle(w->capture), 0);
		assert_int_equal(capture_rearm(w->capture), 0);
		look(w);
		pid = fork_raw();
		if (!pid)
			write_as_child(&memory);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
		finish(w);
		assert_false(w->is_lost);
		check(w);
		capture_get_stats(w->capture, stats);
		assert_int_equal(stats->pages_fault, 0);
		world_free(w);
		memory_unmap(&memory);
	}
	free(stats);
}

/* Writes when it is told to, and tells that it has. */
static void write_when_told(const struct memory *memory, int from, int to)
{
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint64_t value = 7; read(from, &c, 1) == 1; value++) {
		stamp(memory->at, memory->len / PAGE_SIZE, value);
		if (write(to, &c, 1) != 1)
			break;
	}
	_exit(0);
}

static bool has_told(int fd, int timeout_ms)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	char c;

	return poll(&pollfd, 1, timeout_ms) == 1 && read(fd, &c, 1) == 1;
}

static unsigned count_uffds(void)
{
	_cleanup_closedir_ DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned n = 0;

	while ((entry = readdir(dir))) {
		char name[32] = "";

		if (readlinkat(dirfd(dir), entry->d_name, name,
			       sizeof(name) - 1) > 0)
			n += !strcmp(name, "anon_inode:[userfaultfd]");
	}
	return n;
}

/* Children that are gone take no descriptors for long. */
static void fork_many(void)
{
	for (int i = 0; i < 100; i++) {
		pid_t pid = fork_raw();

		if (!pid)
			_exit(0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	}
	assert_true(count_uffds() < 40);
}

/* A child that was forked before the instant writes to what it shares before
 * it; from then on it waits until all is captured. */
static void an_older_child_shares(void **state)
{
	struct world *w = world_new();
	struct memory memory;
	int to_child[2], from_child[2], status;
	pid_t pid;

	(void)state;
	assert_true(memory_map(&memory, MEMFD, AREA_LEN, 5));
	stamp(memory.at, memory.len / PAGE_SIZE, 1);
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	add_self(w);
	add_area(w, 0, getpid(), &memory, memory.at, 0);
	assert_int_equal(capture_arm(w->capture), 0);
	pid = fork_raw();
	if (!pid) {
		close(to_child[1]);
		write_when_told(&memory, to_child[0], from_child[1]);
	}
	assert_int_equal(write(to_child[1], "", 1), 1);
	assert_true(has_told(from_child[0], 10000));
	fork_many();
	assert_int_equal(capture_settle(w->capture), 0);
	assert_int_equal(capture_rearm(w->capture), 0);
	look(w);
	fork_many();
	assert_int_equal(*(uint64_t *)w->areas[0].expected, 7);
	assert_int_equal(write(to_child[1], "", 1), 1);
	assert_false(has_told(from_child[0], 100));
	finish(w);
	assert_false(w->is_lost);
	check(w);
	assert_true(has_told(from_child[0], 10000));
	close(to_child[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(to_child[0]);
	close(from_child[0]);
	close(from_child[1]);
	world_free(w);
	memory_unmap(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_pages),
		cmocka_unit_test(huge_pages),
		cmocka_unit_test(lazily_freed),
		cmocka_unit_test(shared_memory_stays_in_its_file),
		cmocka_unit_test(holes_in_a_file_mapped_twice),
		cmocka_unit_test(two_processes),
		cmocka_unit_test(a_fork_is_free),
		cmocka_unit_test(an_older_child_shares),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
