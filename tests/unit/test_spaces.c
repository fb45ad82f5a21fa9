/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"
#include "world.h"

/*
 * The capture engine on targets that are not one piece of memory, known
 * beforehand: regions that come late, that are dropped in the freeze, or taken
 * before they go; several processes.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/result.h"
#include "capture/capture.h"
#include "sys/pagemap.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/vmio.h"

#define MAX_AREAS   8
#define MAX_WRITERS 2

/* A region, as the sink was given it, and as it was in the instant. */
struct area {
	pid_t pid;
	uint8_t *at;
	size_t len;
	uint8_t *expected, *got;
};

struct world {
	struct capture *capture;
	struct self self;
	struct area areas[MAX_AREAS]; /* by region */
	unsigned n_areas;

	/* Threads of this process, if it is the target. */
	uint8_t *written[MAX_WRITERS]; /* by each */
	size_t written_len;
	pthread_t writers[MAX_WRITERS];
	pthread_rwlock_t frozen;
	_Atomic bool stop;
	_Atomic unsigned n_started;
	_Atomic uint64_t n_writes;
};

/* A process of two. */
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

static void open_capture(struct world *w)
{
	struct capture_config config = {
		.mappings_change = true,
		.markers = true,
		.buffer_bytes = 32 * MIB,
		.granule_bytes = 64 * KIB,
		.sink = { .put = sink_put, .opaque = w },
	};
	bool markers;

	/* For its look whether there is any. */
	close(open_uffd(&markers));
	config.markers = markers;
	assert_int_equal(capture_new(&w->capture, &config), 0);
}

static void add_self(struct world *w)
{
	struct capture_space space = { .pid = getpid() };
	bool markers;

	self_open(&w->self);
	space.pidfd = w->self.pidfd;
	space.pagemap_fd = w->self.pagemap_fd;
	space.mem_fd = -1;
	space.uffd = open_uffd(&markers);
	assert_int_equal(capture_add_space(w->capture, &space), 0);
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&w->frozen, &attr);
	w->self = (struct self){ -1, -1, -1 };
	open_capture(w);
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
	free(w);
}

static uint8_t *map_anonymous(void *at, size_t len)
{
	uint8_t *memory =
		mmap(at, len, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);

	assert_true(memory != MAP_FAILED);
	madvise(memory, len, MADV_NOHUGEPAGE);
	return memory;
}

static struct area *add_area(struct world *w, struct region_desc desc,
			     pid_t pid)
{
	struct area *area = &w->areas[w->n_areas++];

	area->pid = pid;
	area->at = (uint8_t *)desc.range.start;
	area->len = range_len(desc.range);
	area->expected = calloc(1, area->len);
	area->got = calloc(1, area->len);
	assert_int_equal(capture_add_region(w->capture, &desc), 0);
	return area;
}

static struct area *add_anonymous(struct world *w, uint8_t *at, size_t len)
{
	return add_area(w,
			(struct region_desc){
				.range = { (uintptr_t)at, (uintptr_t)at + len },
				.page_size = PAGE_SIZE,
				.fd = -1,
			},
			getpid());
}

/* By the kernel: to sanitizers this is no race. */
static void look(struct area *area)
{
	assert_int_equal(vm_read(area->pid, (uintptr_t)area->at, area->expected,
				 area->len),
			 0);
}

static size_t n_wrong(const struct area *area, size_t from, size_t to)
{
	size_t n = 0;

	for (size_t at = from; at < to; at += PAGE_SIZE)
		n += !!memcmp(area->expected + at, area->got + at, PAGE_SIZE);
	return n;
}

static size_t n_wrong_pages(const struct area *area)
{
	return n_wrong(area, 0, area->len);
}

static void *write_memory(void *data)
{
	static _Atomic uint64_t seeds = 88172645463325252;
	struct world *w = data;
	uint64_t seed = atomic_fetch_add(&seeds, 7919);
	uint8_t *to = w->written[atomic_fetch_add(&w->n_started, 1)];

	while (!atomic_load(&w->stop)) {
		pthread_rwlock_rdlock(&w->frozen);
		for (int i = 0; i < 16; i++) {
			uint64_t at = next_random(&seed) % (w->written_len / 8);

			__atomic_store_n((uint64_t *)to + at, seed,
					 __ATOMIC_RELAXED);
		}
		pthread_rwlock_unlock(&w->frozen);
		atomic_fetch_add(&w->n_writes, 16);
	}
	return NULL;
}

static void start_writers(struct world *w, uint8_t *at, size_t len)
{
	for (int i = 0; i < MAX_WRITERS; i++)
		if (!w->written[i])
			w->written[i] = at;
	w->written_len = len;
	for (int i = 0; i < MAX_WRITERS; i++)
		assert_int_equal(
			pthread_create(&w->writers[i], NULL, write_memory, w),
			0);
}

/* Fails if they wait for a page. */
static void stop_writers(struct world *w)
{
	uint64_t before = atomic_load(&w->n_writes);

	for (int i = 0; atomic_load(&w->n_writes) < before + 160; i++) {
		assert_true(i < 100000);
		usleep(100);
	}
	atomic_store(&w->stop, true);
	for (int i = 0; i < MAX_WRITERS; i++)
		pthread_join(w->writers[i], NULL);
}

static void finish(struct world *w)
{
	assert_int_equal(capture_run(w->capture), 0);
	assert_int_equal(capture_drain(w->capture), 0);
}

/* One is there from the start, one is armed later, one comes in the freeze; and
 * of the first a part is unmapped, and mapped anew, before the freeze. */
static void regions_come_and_go(void **state)
{
	size_t len = 8 * MIB, hole = 3 * MIB + 5 * PAGE_SIZE, hole_len = MIB;
	uint8_t *memory = map_anonymous(NULL, 4 * len);
	struct world *w = world_new();
	struct area *a, *b, *c, *d;

	(void)state;
	memset(memory, 1, 4 * len);
	add_self(w);
	a = add_anonymous(w, memory, len);
	start_writers(w, memory, 4 * len);
	assert_int_equal(capture_arm(w->capture), 0);
	b = add_anonymous(w, memory + len, 2 * len);
	assert_int_equal(capture_arm(w->capture), 0);

	pthread_rwlock_wrlock(&w->frozen);
	map_anonymous(memory + hole, hole_len);
	pthread_rwlock_unlock(&w->frozen);
	assert_int_equal(capture_settle(w->capture), 0);

	pthread_rwlock_wrlock(&w->frozen);
	assert_int_equal(capture_drop(w->capture, 0,
				      (struct range){ (uintptr_t)memory + hole,
						      (uintptr_t)memory + hole +
							      hole_len }),
			 0);
	c = add_anonymous(w, memory + hole, hole_len);
	d = add_anonymous(w, memory + 3 * len, len);
	assert_int_equal(capture_rearm(w->capture), 0);
	for (unsigned i = 0; i < w->n_areas; i++)
		look(&w->areas[i]);
	assert_int_equal(
		capture_drop(w->capture, 0, (struct range){ 0, PAGE_SIZE }),
		-EBUSY);
	pthread_rwlock_unlock(&w->frozen);
	finish(w);
	stop_writers(w);

	assert_int_equal(n_wrong(a, 0, hole), 0);
	assert_int_equal(n_wrong(a, hole + hole_len, len), 0);
	assert_int_equal(n_wrong_pages(b), 0);
	assert_int_equal(n_wrong_pages(c), 0);
	assert_int_equal(n_wrong_pages(d), 0);
	/* Nothing was captured from where the first had been. */
	for (size_t i = hole; i < hole + hole_len; i++)
		assert_int_equal(a->got[i], 0);
	world_free(w);
	munmap(memory, 4 * len);
}

/* What has gone and was not dropped is not passed over. */
static void what_is_gone_must_be_dropped(void **state)
{
	uint8_t *memory = map_anonymous(NULL, 4 * MIB);
	struct world *w = world_new();

	(void)state;
	memset(memory, 1, 4 * MIB);
	add_self(w);
	add_anonymous(w, memory, 4 * MIB);
	assert_int_equal(capture_arm(w->capture), 0);
	munmap(memory + MIB, MIB);
	assert_int_equal(capture_settle(w->capture), 0);
	assert_true(capture_rearm(w->capture) != 0);
	world_free(w);
	munmap(memory, 4 * MIB);
}

/* Its mapping goes between the caller's look and the arming. */
static void a_region_that_is_gone_already(void **state)
{
	uint8_t *memory = map_anonymous(NULL, 4 * MIB);
	struct range gone = { (uintptr_t)memory, (uintptr_t)memory + MIB };
	struct world *w = world_new();
	struct area *b;

	(void)state;
	memset(memory, 1, 4 * MIB);
	add_self(w);
	add_anonymous(w, memory, MIB);
	b = add_anonymous(w, memory + MIB, 3 * MIB);
	munmap(memory, MIB);
	assert_int_equal(capture_arm(w->capture), 0);
	assert_int_equal(capture_settle(w->capture), 0);
	assert_int_equal(capture_drop(w->capture, 0, gone), 0);
	assert_int_equal(capture_rearm(w->capture), 0);
	look(b);
	finish(w);
	assert_int_equal(n_wrong_pages(b), 0);
	world_free(w);
	munmap(memory + MIB, 3 * MIB);
}

/* Half of many blocks is unmapped, the other written: both must go on. */
static void what_is_taken_may_go(void **state)
{
	size_t len = 8 * MIB, hole = MIB + 5 * PAGE_SIZE;
	uint8_t *memory = map_anonymous(NULL, len);
	struct world *w = world_new();
	struct area *a;

	(void)state;
	memset(memory, 1, len);
	add_self(w);
	a = add_anonymous(w, memory, len);
	start_writers(w, memory, len);
	assert_int_equal(capture_arm(w->capture), 0);
	assert_int_equal(capture_settle(w->capture), 0);
	pthread_rwlock_wrlock(&w->frozen);
	assert_int_equal(capture_rearm(w->capture), 0);
	look(a);
	for (int i = 0; i < 20; i++) {
		uint8_t *at = memory + hole + (size_t)i * 64 * KIB;
		struct range range = { (uintptr_t)at,
				       (uintptr_t)at + 8 * PAGE_SIZE };

		assert_int_equal(capture_range_now(w->capture, 0, range), 0);
		pthread_rwlock_unlock(&w->frozen);
		usleep(200);
		pthread_rwlock_wrlock(&w->frozen);
		map_anonymous(at, 8 * PAGE_SIZE);
	}
	pthread_rwlock_unlock(&w->frozen);
	finish(w);
	stop_writers(w);
	assert_int_equal(n_wrong_pages(a), 0);
	world_free(w);
	munmap(memory, len);
}

/* Mapped shared, from page `skip` of the file on. */
static struct area *add_shared(struct world *w, unsigned space, pid_t pid,
			       int fd, uint8_t *at, size_t len, size_t skip)
{
	return add_area(w,
			(struct region_desc){
				.space = space,
				.range = { (uintptr_t)at, (uintptr_t)at + len },
				.page_size = PAGE_SIZE,
				.fd = fd,
				.fd_offset = skip * PAGE_SIZE,
				.shared = true,
				.file_id = 1,
			},
			pid);
}

static uint8_t *map_shared(int fd, size_t len, size_t skip)
{
	uint8_t *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			   (off_t)(skip * PAGE_SIZE));

	assert_true(at != MAP_FAILED);
	return at;
}

static int open_file(size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	return fd;
}

/* One file, mapped twice, and written through both; the second comes early, or
 * late, or in the freeze. */
static void one_file_mapped_twice(void **state)
{
	size_t len = 8 * MIB, skip = 5;
	size_t len_b = len - 2 * MIB - skip * PAGE_SIZE;

	(void)state;
	for (int round = 0; round < 6; round++) {
		int fd = open_file(len), when = round % 3;
		uint8_t *at = map_shared(fd, len, 0);
		uint8_t *at_b = map_shared(fd, len_b, skip);
		struct world *w = world_new();
		struct area *a, *b = NULL;

		memset(at, 1, len / 2);
		add_self(w);
		a = add_shared(w, 0, getpid(), fd, at, len, 0);
		w->written[1] = at_b;
		start_writers(w, at, len_b);
		if (when == 0)
			b = add_shared(w, 0, getpid(), fd, at_b, len_b, skip);
		assert_int_equal(capture_arm(w->capture), 0);
		if (when == 1) {
			b = add_shared(w, 0, getpid(), fd, at_b, len_b, skip);
			assert_int_equal(capture_arm(w->capture), 0);
		}
		assert_int_equal(capture_settle(w->capture), 0);
		pthread_rwlock_wrlock(&w->frozen);
		if (when == 2)
			b = add_shared(w, 0, getpid(), fd, at_b, len_b, skip);
		assert_int_equal(capture_rearm(w->capture), 0);
		look(a);
		look(b);
		pthread_rwlock_unlock(&w->frozen);
		usleep(2000);
		finish(w);
		stop_writers(w);
		assert_int_equal(n_wrong_pages(a), 0);
		assert_int_equal(n_wrong_pages(b), 0);
		world_free(w);
		munmap(at, len);
		munmap(at_b, len_b);
		close(fd);
	}
}

static void live(int to_parent, uint8_t *own, uint8_t *shared, size_t len)
{
	uint64_t seed = (uint64_t)getpid() * 7919;
	bool markers;
	int uffd = open_uffd(&markers);

	/* Also when a check fails. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (write(to_parent, &uffd, sizeof(uffd)) != sizeof(uffd))
		_exit(1);
	for (;;) {
		uint64_t at = next_random(&seed) % (len / 8);

		__atomic_store_n((uint64_t *)own + at, seed, __ATOMIC_RELAXED);
		__atomic_store_n((uint64_t *)shared + at, seed,
				 __ATOMIC_RELAXED);
	}
}

static unsigned start_child(struct world *w, struct child *child, uint8_t *own,
			    uint8_t *shared, size_t len)
{
	struct capture_space space = {};
	int fds[2], uffd, r;

	assert_int_equal(pipe(fds), 0);
	child->pid = fork();
	if (!child->pid)
		live(fds[1], own, shared, len);
	assert_int_equal(read(fds[0], &uffd, sizeof(uffd)), sizeof(uffd));
	close(fds[0]);
	close(fds[1]);
	child->self.proc_fd = procfs_open(child->pid);
	child->self.pidfd = pidfd_from_pid(child->pid);
	child->self.pagemap_fd = pagemap_open(child->self.proc_fd);
	space.pid = child->pid;
	space.pidfd = child->self.pidfd;
	space.pagemap_fd = child->self.pagemap_fd;
	space.uffd = pidfd_take_fd(space.pidfd, uffd);
	assert_true(space.uffd >= 0);
	r = capture_add_space(w->capture, &space);
	assert_true(r >= 0);
	return (unsigned)r;
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

/* Two processes, each with memory of its own, and a file that both map. The
 * second only guards it, in some rounds. */
static void two_processes_share_a_file(void **state)
{
	size_t len = 4 * MIB;

	(void)state;
	for (int round = 0; round < 6; round++) {
		uint8_t *own = map_anonymous(NULL, len);
		int fd = open_file(len);
		uint8_t *at = map_shared(fd, len, 0);
		struct world *w = world_new();
		struct child children[2];

		memset(at, 1, len / 2);
		for (int i = 0; i < 2; i++) {
			struct child *c = &children[i];
			unsigned space = start_child(w, c, own, at, len);
			struct region_desc desc = {
				.space = space,
				.range = { (uintptr_t)own,
					   (uintptr_t)own + len },
				.page_size = PAGE_SIZE,
				.fd = -1,
			};

			add_area(w, desc, c->pid);
			desc.range = (struct range){ (uintptr_t)at,
						     (uintptr_t)at + len };
			desc.fd = fd;
			desc.shared = true;
			desc.file_id = 1;
			desc.guard = i && round % 2;
			add_area(w, desc, c->pid);
		}
		assert_int_equal(capture_arm(w->capture), 0);
		assert_int_equal(capture_settle(w->capture), 0);
		stop_child(&children[0]);
		stop_child(&children[1]);
		assert_int_equal(capture_rearm(w->capture), 0);
		for (unsigned i = 0; i < w->n_areas; i++)
			look(&w->areas[i]);
		kill(children[0].pid, SIGCONT);
		kill(children[1].pid, SIGCONT);
		usleep(2000);
		finish(w);
		for (unsigned i = 0; i < w->n_areas - round % 2; i++)
			assert_int_equal(n_wrong_pages(&w->areas[i]), 0);
		end_child(&children[0]);
		end_child(&children[1]);
		world_free(w);
		munmap(own, len);
		munmap(at, len);
		close(fd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(regions_come_and_go),
		cmocka_unit_test(what_is_gone_must_be_dropped),
		cmocka_unit_test(a_region_that_is_gone_already),
		cmocka_unit_test(what_is_taken_may_go),
		cmocka_unit_test(one_file_mapped_twice),
		cmocka_unit_test(two_processes_share_a_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
