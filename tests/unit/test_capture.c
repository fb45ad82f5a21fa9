/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"
#include "world.h"

/*
 * The capture engine on memory of this very process: threads rewrite it as
 * fast as they can, stand still for the instant, and go on. What the sink was
 * given must be, byte for byte, what was there while they stood.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/result.h"
#include "capture/capture.h"
#include "sys/pidfd.h"
#include "sys/vmio.h"

#define N_WRITERS 2

struct world {
	struct memory area;
	uint8_t *memory; /* of the area */
	size_t len;
	uint8_t *expected;
	uint8_t *got;
	pthread_rwlock_t frozen; /* writers hold it for reading */
	_Atomic bool stop;
	_Atomic uint64_t n_writes;
	pthread_t writers[N_WRITERS];

	struct self self;
	struct capture *capture;
	unsigned sink_delay_us;
	int sink_fails_after; /* calls; -1: never */
	int mortal; /* pidfd of who dies while the sink stalls, or -1 */
	_Atomic bool cancelled;
	uint8_t *twice; /* per page: how often the sink got it */
};

/* All over, so that pages also come into being at every time. */
static void *write_memory(void *data)
{
	static _Atomic uint64_t seeds = 88172645463325252;
	struct world *w = data;
	uint64_t seed = atomic_fetch_add(&seeds, 7919);

	while (!atomic_load(&w->stop)) {
		pthread_rwlock_rdlock(&w->frozen);
		for (int i = 0; i < 64; i++) {
			uint64_t at = next_random(&seed) % (w->len / 8);

			__atomic_store_n((uint64_t *)w->memory + at, seed,
					 __ATOMIC_RELAXED);
		}
		pthread_rwlock_unlock(&w->frozen);
		atomic_fetch_add(&w->n_writes, 64);
	}
	return NULL;
}

static int sink_put(void *opaque, unsigned region, uint64_t first, uint64_t n,
		    const void *data, struct hold *hold)
{
	struct world *w = opaque;

	(void)hold;
	assert_int_equal(region, 0);
	assert_true((first + n) * PAGE_SIZE <= w->len);
	if (w->sink_fails_after >= 0 && !w->sink_fails_after--)
		return log_errno(-ENOSPC, "sink: %m");
	if (w->mortal >= 0) {
		pidfd_kill(w->mortal, SIGKILL);
		while (!atomic_load(&w->cancelled))
			usleep(1000);
		return -ECANCELED;
	}
	if (w->sink_delay_us)
		usleep(w->sink_delay_us);
	memcpy(w->got + first * PAGE_SIZE, data, n * PAGE_SIZE);
	for (uint64_t i = first; i < first + n; i++)
		w->twice[i]++;
	return 0;
}

static void sink_cancel(void *opaque)
{
	struct world *w = opaque;

	atomic_store(&w->cancelled, true);
}

static struct world *world_new(enum memory_kind kind, size_t len)
{
	struct world *w = calloc(1, sizeof(*w));
	pthread_rwlockattr_t attr;

	/* Not on an extent's border, for the harder case. */
	assert_true(memory_map(&w->area, kind, len - 8 * PAGE_SIZE, 3));
	w->memory = w->area.at;
	w->len = w->area.len;
	w->sink_fails_after = w->mortal = -1;
	w->expected = malloc(w->len);
	w->got = calloc(1, w->len);
	w->twice = calloc(1, w->len / PAGE_SIZE);
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&w->frozen, &attr);
	self_open(&w->self);
	return w;
}

/* Two thirds of it, with gaps of pages and of whole extents. */
static void populate(struct world *w)
{
	for (size_t page = 0; page < w->len / PAGE_SIZE; page++)
		if (page / PMD_PAGES % 3 && page % 7)
			memset(w->memory + page * PAGE_SIZE, (int)page | 1,
			       PAGE_SIZE);
}

/* Until the writers have got on by so much, whatever else the machine does. */
static void wait_for_writes(struct world *w, uint64_t n)
{
	uint64_t before = atomic_load(&w->n_writes);

	while (atomic_load(&w->n_writes) < before + n)
		usleep(100);
}

static void start_writers(struct world *w)
{

	for (int i = 0; i < N_WRITERS; i++)
		assert_int_equal(
			pthread_create(&w->writers[i], NULL, write_memory, w),
			0);
	wait_for_writes(w, 1);
}

/* Fails if a writer still waits for a page. */
static void stop_writers(struct world *w)
{
	uint64_t before = atomic_load(&w->n_writes);

	for (int i = 0; atomic_load(&w->n_writes) < before + 640; i++) {
		assert_true(i < 50000);
		usleep(100);
	}
	atomic_store(&w->stop, true);
	for (int i = 0; i < N_WRITERS; i++)
		pthread_join(w->writers[i], NULL);
	atomic_store(&w->stop, false);
}

static void world_free(struct world *w)
{
	w->capture = capture_free(w->capture);
	memory_unmap(&w->area);
	free(w->expected);
	free(w->got);
	free(w->twice);
	self_close(&w->self);
	pthread_rwlock_destroy(&w->frozen);
	free(w);
}

static void make_capture(struct world *w, uint64_t buffer, uint64_t granule)
{
	struct capture_space space = {
		.pid = getpid(),
		.pidfd = w->mortal >= 0 ? w->mortal : w->self.pidfd,
		.pagemap_fd = w->self.pagemap_fd,
		.mem_fd = -1,
	};
	struct capture_config config = {
		.buffer_bytes = buffer,
		.granule_bytes = granule,
		.sink = { .put = sink_put, .cancel = sink_cancel, .opaque = w },
	};
	struct region_desc desc = {
		.range = { (uintptr_t)w->memory,
			   (uintptr_t)w->memory + w->len },
		.page_size = PAGE_SIZE,
		.fd = w->area.fd,
		.fd_offset = w->area.fd_offset,
		.shared = w->area.fd >= 0,
	};

	space.uffd = open_uffd(&config.markers);
	assert_int_equal(capture_new(&w->capture, &config), 0);
	assert_int_equal(capture_add_space(w->capture, &space), 0);
	assert_int_equal(capture_add_region(w->capture, &desc), 0);
}

/* Up to the thaw; `expected` is the memory of the instant. */
static void take_instant(struct world *w)
{
	assert_int_equal(capture_arm(w->capture), 0);
	assert_int_equal(capture_settle(w->capture), 0);
	pthread_rwlock_wrlock(&w->frozen);
	assert_int_equal(capture_rearm(w->capture), 0);
	memcpy(w->expected, w->memory, w->len);
	pthread_rwlock_unlock(&w->frozen);
}

static size_t n_wrong_pages(const struct world *w)
{
	size_t n = 0;

	for (size_t at = 0; at < w->len; at += PAGE_SIZE)
		n += !!memcmp(w->expected + at, w->got + at, PAGE_SIZE);
	return n;
}

static void capture_is_exact(enum memory_kind kind, size_t len, uint64_t buffer,
			     uint64_t granule, unsigned sink_delay_us)
{
	struct world *w = world_new(kind, len);
	struct capture_stats *stats = calloc(1, sizeof(*stats));

	w->sink_delay_us = sink_delay_us;
	populate(w);
	make_capture(w, buffer, granule);
	start_writers(w);
	take_instant(w);
	assert_int_equal(capture_run(w->capture), 0);
	assert_int_equal(capture_drain(w->capture), 0);
	capture_get_stats(w->capture, stats);
	stop_writers(w);

	assert_int_equal(n_wrong_pages(w), 0);
	for (size_t i = 0; i < w->len / PAGE_SIZE; i++)
		assert_true(w->twice[i] <= 1);
	assert_int_equal(stats->pages_total, w->len / PAGE_SIZE);
	assert_true(stats->faults.n > 0);
	assert_true(stats->peak_buffer_bytes <= max_u64(buffer, 16 * MIB));
	free(stats);
	world_free(w);
}

static void small_pages(void **state)
{
	(void)state;
	capture_is_exact(ANON_SMALL, 64 * MIB, 64 * MIB, 64 * KIB, 0);
}

static void single_pages(void **state)
{
	(void)state;
	capture_is_exact(ANON_SMALL, 32 * MIB, 64 * MIB, 4 * KIB, 0);
}

static void huge_pages(void **state)
{
	(void)state;
	capture_is_exact(ANON_HUGE, 128 * MIB, 64 * MIB, 256 * KIB, 0);
}

static void shared_memory(void **state)
{
	(void)state;
	capture_is_exact(MEMFD, 64 * MIB, 64 * MIB, 256 * KIB, 0);
}

static void slow_sink_and_few_buffers(void **state)
{
	(void)state;
	capture_is_exact(ANON_SMALL, 32 * MIB, 16 * MIB, 128 * KIB, 2000);
}

/* The comparison above would catch a copy that is not of one instant. */
static void a_plain_copy_is_torn(void **state)
{
	struct world *w = world_new(ANON_SMALL, 64 * MIB);

	(void)state;
	populate(w);
	start_writers(w);
	pthread_rwlock_wrlock(&w->frozen);
	memcpy(w->expected, w->memory, w->len);
	pthread_rwlock_unlock(&w->frozen);
	wait_for_writes(w, 1000);
	/* By the kernel: to sanitizers this is a race, as it is meant to be. */
	assert_int_equal(
		vm_read(getpid(), (uintptr_t)w->memory, w->got, w->len), 0);
	stop_writers(w);
	assert_true(n_wrong_pages(w) > 0);
	world_free(w);
}

/* And so it is when what was written during arming is not protected again. */
static void skipping_the_rearm_is_torn(void **state)
{
	struct world *w = world_new(ANON_SMALL, 64 * MIB);

	(void)state;
	populate(w);
	make_capture(w, 64 * MIB, 64 * KIB);
	start_writers(w);
	assert_int_equal(capture_arm(w->capture), 0);
	wait_for_writes(w, 1000);
	pthread_rwlock_wrlock(&w->frozen);
	memcpy(w->expected, w->memory, w->len);
	pthread_rwlock_unlock(&w->frozen);
	wait_for_writes(w, 1000);
	assert_int_equal(capture_rearm(w->capture), 0);
	assert_int_equal(capture_run(w->capture), 0);
	assert_int_equal(capture_drain(w->capture), 0);
	stop_writers(w);
	assert_true(n_wrong_pages(w) > 0);
	world_free(w);
}

static void a_failing_sink_frees_the_writers(void **state)
{
	struct world *w = world_new(ANON_SMALL, 64 * MIB);
	int r;

	(void)state;
	w->sink_fails_after = 3;
	w->sink_delay_us = 1000;
	populate(w);
	make_capture(w, 16 * MIB, 64 * KIB);
	start_writers(w);
	take_instant(w);
	r = capture_run(w->capture);
	if (!r)
		r = capture_drain(w->capture);
	assert_int_equal(r, -ENOSPC);
	w->capture = capture_free(w->capture);
	stop_writers(w);
	world_free(w);
}

/* All wait for each other, and for a sink that takes nothing: that the target
 * has died must be seen. Here somebody else dies in its stead. */
static void a_stalled_sink_hides_no_death(void **state)
{
	struct world *w = world_new(ANON_SMALL, 64 * MIB);
	pid_t child = fork();

	(void)state;
	if (!child) {
		pause();
		_exit(0);
	}
	w->mortal = pidfd_from_pid(child);
	assert_true(w->mortal >= 0);
	populate(w);
	make_capture(w, 16 * MIB, 64 * KIB);
	start_writers(w);
	take_instant(w);
	assert_int_equal(capture_run(w->capture), -ESRCH);
	w->capture = capture_free(w->capture);
	stop_writers(w);
	waitpid(child, NULL, 0);
	close_fd(&w->mortal);
	world_free(w);
}

/* Giving up at each stage leaves nobody waiting and nothing protected. */
static void giving_up_frees_the_writers(void **state)
{
	(void)state;
	for (int stage = 0; stage < 5; stage++) {
		struct world *w = world_new(ANON_SMALL, 16 * MIB);

		populate(w);
		make_capture(w, 16 * MIB, 64 * KIB);
		start_writers(w);
		if (stage >= 1)
			assert_int_equal(capture_arm(w->capture), 0);
		if (stage >= 2)
			assert_int_equal(capture_settle(w->capture), 0);
		if (stage >= 3)
			assert_int_equal(capture_rearm(w->capture), 0);
		if (stage >= 4)
			assert_int_equal(capture_run(w->capture), 0);
		w->capture = capture_free(w->capture);
		stop_writers(w);
		world_free(w);
	}
}

static uint8_t *half_way(const struct world *w)
{
	return (uint8_t *)ROUND_UP((uintptr_t)w->memory + w->len / 2,
				   PAGE_SIZE);
}

static void discarded_pages_are_captured_first(void **state)
{
	struct world *w = world_new(ANON_SMALL, 64 * MIB);

	(void)state;
	populate(w);
	make_capture(w, 16 * MIB, 64 * KIB);
	take_instant(w);
	/* The call returns when its event has been read. */
	assert_int_equal(madvise(half_way(w), 4 * MIB, MADV_DONTNEED), 0);
	assert_int_equal(capture_run(w->capture), 0);
	assert_int_equal(capture_drain(w->capture), 0);
	assert_int_equal(n_wrong_pages(w), 0);
	world_free(w);
}

static void unmapped_pages_are_noticed(void **state)
{
	struct world *w = world_new(ANON_SMALL, 64 * MIB);

	(void)state;
	populate(w);
	make_capture(w, 16 * MIB, 64 * KIB);
	take_instant(w);
	assert_int_equal(munmap(half_way(w), 4 * MIB), 0);
	assert_int_equal(capture_run(w->capture), RESULT_INCONSISTENT);
	world_free(w);
}

/* Discarded while arming, written again: still the memory of the instant. */
static void discards_before_the_instant_are_fine(void **state)
{
	struct world *w = world_new(ANON_SMALL, 64 * MIB);
	uint8_t *at;

	(void)state;
	populate(w);
	make_capture(w, 64 * MIB, 64 * KIB);
	assert_int_equal(capture_arm(w->capture), 0);
	at = (uint8_t *)ROUND_UP((uintptr_t)w->memory + w->len / 2, PAGE_SIZE);
	assert_int_equal(madvise(at, 4 * MIB, MADV_DONTNEED), 0);
	memset(at, 0x5a, 64 * KIB);
	start_writers(w);
	assert_int_equal(capture_settle(w->capture), 0);
	pthread_rwlock_wrlock(&w->frozen);
	assert_int_equal(capture_rearm(w->capture), 0);
	memcpy(w->expected, w->memory, w->len);
	pthread_rwlock_unlock(&w->frozen);
	assert_int_equal(capture_run(w->capture), 0);
	assert_int_equal(capture_drain(w->capture), 0);
	stop_writers(w);
	assert_int_equal(n_wrong_pages(w), 0);
	world_free(w);
}

/* The target truncates its file: no SIGBUS for us. */
static void a_truncated_file_is_noticed(void **state)
{
	struct world *w = world_new(MEMFD, 64 * MIB);

	(void)state;
	populate(w);
	make_capture(w, 64 * MIB, 64 * KIB);
	take_instant(w);
	assert_int_equal(ftruncate(w->area.fd, 32 * (off_t)MIB), 0);
	assert_int_equal(capture_run(w->capture), RESULT_INCONSISTENT);
	world_free(w);
}

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static uint64_t read_number(const char *path)
{
	FILE *file = fopen(path, "re");
	uint64_t n = 0;

	if (file) {
		if (fscanf(file, "%" SCNu64, &n) != 1)
			n = 0;
		fclose(file);
	}
	return n;
}

#define KSM "/sys/kernel/mm/ksm/"

/* Merging pages drops their protection (tests/kernel/ksm_drops_protection). */
static void lost_protection_is_noticed(void **state)
{
	uint64_t run = read_number(KSM "run");
	uint64_t to_scan = read_number(KSM "pages_to_scan");
	struct world *w;
	char text[32];
	int r;

	(void)state;
	snprintf(text, sizeof(text), "%" PRIu64, to_scan);
	if (write_text(KSM "pages_to_scan", "20000")) {
		print_message("# no KSM here\n");
		skip();
	}
	w = world_new(ANON_SMALL, 16 * MIB);
	memset(w->memory, 0x77, w->len);
	make_capture(w, 64 * MIB, 64 * KIB);
	take_instant(w);
	assert_int_equal(
		madvise((void *)ROUND_UP((uintptr_t)w->memory, PAGE_SIZE),
			w->len, MADV_MERGEABLE),
		0);
	write_text(KSM "run", "1");
	for (int i = 0; i < 200; i++) {
		usleep(50000);
		r = read_number("/proc/self/ksm_merging_pages") > 1000;
		if (r)
			break;
	}
	write_text(KSM "run", run ? "1" : "0");
	write_text(KSM "pages_to_scan", text);
	if (!r) {
		print_message("# KSM did not merge in time\n");
		world_free(w);
		skip();
	}
	/* It need not be written: that it could have been is enough. */
	assert_int_equal(capture_run(w->capture), RESULT_INCONSISTENT);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_pages),
		cmocka_unit_test(single_pages),
		cmocka_unit_test(huge_pages),
		cmocka_unit_test(shared_memory),
		cmocka_unit_test(slow_sink_and_few_buffers),
		cmocka_unit_test(a_plain_copy_is_torn),
		cmocka_unit_test(skipping_the_rearm_is_torn),
		cmocka_unit_test(a_failing_sink_frees_the_writers),
		cmocka_unit_test(a_stalled_sink_hides_no_death),
		cmocka_unit_test(giving_up_frees_the_writers),
		cmocka_unit_test(discarded_pages_are_captured_first),
		cmocka_unit_test(unmapped_pages_are_noticed),
		cmocka_unit_test(discards_before_the_instant_are_fine),
		cmocka_unit_test(a_truncated_file_is_noticed),
		cmocka_unit_test(lost_protection_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
