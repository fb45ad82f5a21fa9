/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "unit.h"
#include "world.h"

/*
 * A model test of page ownership. Rounds of random shape run the capture engine
 * on memory of this process, under threads that write it, and hold it to what
 * it promises:
 *
 *   - the sink is given the memory of the instant;
 *   - a page is copied at most once, and one that existed in the instant once;
 *   - no page that existed is released before it was copied;
 *   - when rearm returns, every page that existed is protected;
 *   - a buffer keeps its content until the sink lets go of it;
 *   - nobody sleeps for good: not when all is captured, not after an error, not
 *     while pages are discarded; and nothing is protected afterwards.
 *
 * The linker puts the functions below between the engine and capture_copy(),
 * uffd_[try_]unprotect() and interrupt_pending() (--wrap), so the test sees
 * each copy and release in order, and makes threads linger where it hurts most.
 *
 * OWNERSHIP_SECONDS  how long to go on (10)
 * OWNERSHIP_SEED     the first round's seed: a failure prints it. Threads are
 *                    not repeatable, but the same round fails again soon.
 * OWNERSHIP_PATIENCE seconds after which somebody sleeps for good (30)
 *
 * Mistakes that were made on purpose, in a copy, and are found:
 *
 *   scan.c    release before the copy; done before the copy; done after the
 *             release
 *   fault.c   release before the copy; release what another owns; ignore a
 *             fault on a block that is done; note before the release; leave the
 *             writer after a failed copy; wait for a refused release without
 *             reading on; put the full slab back instead of queueing it
 *   arm.c     skip the re-arm; skip new extents; clear a note after protecting
 *             its page; protect without counting as populated; forget what was
 *             discarded
 *   slab.c    wake nobody when a slab comes back, or when the pool fails
 *   output.c  put a slab back while the sink holds it
 *
 * Not found within a minute, for the windows are too short: a claim by two
 * operations; faults served while re-arming, or no wake after it (MODE_HOLD).
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/interrupt.h"
#include "base/io.h"
#include "base/result.h"
#include "capture/internal.h"
#include "sys/pagemap.h"
#include "sys/uffd.h"

#define MAX_PARTS   4
#define MAX_WRITERS 4
#define MAX_HELD    24
#define MAX_BYTES   (40 * MIB)

/* Words of /proc/PID/pagemap. */
#define WORD_PROTECTED ((uint64_t)1 << 57)

enum sink_kind {
	SINK_INSTANT,
	SINK_SLOW,
	SINK_STALLS,
	SINK_HOLDS, /* takes holds, lets them go in any order */
	N_SINK_KINDS,
};

/* What a round is like. */
struct shape {
	uint64_t seed;
	unsigned n_parts, n_writers;
	uint64_t granule, buffer;
	enum sink_kind sink;
	int fails_after;       /* calls of the sink; -1: never */
	int copies_fail_after; /* copies; -1: never */
	int interrupt_after;   /* µs from arming on; -1: never */
	int leave_at;	       /* stage, see run_round(); -1: never */
	unsigned linger;       /* 0 never … 3 often */
	bool march;	       /* see choose_page() */
	bool discards;	       /* while arming */
	bool late_discards;    /* and later, which discards the snapshot */
};

/* A region, and what is known of it; arrays are by page. */
struct part {
	struct memory memory; /* mapping NULL: a part's that came before */
	size_t n_pages;
	bool *existed; /* in the instant */
	uint8_t *expected;
	_Atomic uint8_t *copied; /* how often, by the engine */
	uint8_t *given;		 /* how often, to the sink */
	uint8_t *got;
};

struct writer {
	struct round *round;
	pthread_t thread;
	uint64_t seed;
	_Atomic uint64_t n_ops;
};

struct held {
	unsigned part;
	uint64_t first, n;
	const void *data;
	struct hold *hold;
};

enum phase {
	PHASE_ARMING,
	PHASE_CAPTURING, /* from the instant to the end of capture_run() */
	PHASE_OVER,
};

struct round {
	struct shape shape;
	struct part parts[MAX_PARTS];
	struct writer writers[MAX_WRITERS];
	unsigned n_started;
	pthread_rwlock_t frozen; /* writers hold it for reading */
	_Atomic bool stop;
	_Atomic enum phase phase;
	_Atomic uint64_t copying; /* an address that the engine works at */
	_Atomic uint64_t step;	  /* of all writers together */
	_Atomic int n_copies_left;
	_Atomic bool copy_failed;
	struct capture *capture;

	struct held held[MAX_HELD]; /* of the output thread */
	size_t n_held;
	uint64_t sink_seed;
	int n_puts_left;
};

static struct self self;
static struct round *_Atomic current; /* for what the linker put between */
static _Atomic uint64_t interrupt_at; /* now_ns(); 0: never */
static const char *_Atomic complaint; /* the first */

/* Which page, where one is at fault. */
static struct {
	unsigned part;
	size_t page;
} culprit;

static void complain(const char *what)
{
	const char *none = NULL;

	atomic_compare_exchange_strong(&complaint, &none, what);
}

static void complain_of(unsigned part, size_t page, const char *what)
{
	if (!atomic_load(&complaint)) {
		culprit.part = part;
		culprit.page = page;
	}
	complain(what);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

static uint64_t thread_random(void)
{
	static _Atomic uint64_t seeds = 88172645463325252;
	static _Thread_local uint64_t seed;

	if (!seed)
		seed = atomic_fetch_add(&seeds, 7919);
	return next_random(&seed);
}

static bool one_in(uint64_t *seed, unsigned n)
{
	return next_random(seed) % n == 0;
}

static void pause_us(uint64_t us)
{
	usleep((useconds_t)us);
}

/*
 * Watchdog: says which round hangs, and who sleeps. There is no way to go on
 * from there.
 */

static _Atomic uint64_t round_began; /* now_ns(); 0: between rounds */

static uint64_t patience_ns(void)
{
	static _Atomic uint64_t ns;

	if (!atomic_load(&ns))
		atomic_store(&ns,
			     env_number("OWNERSHIP_PATIENCE", 30) * 1000000000);
	return atomic_load(&ns);
}

static void describe(const struct round *round)
{
	static const char *const sinks[] = { "instant", "slow", "stalls",
					     "holds" };
	const struct shape *s = &round->shape;

	fprintf(stderr,
		"# OWNERSHIP_SEED=%#llx: granule %llu KiB, buffer %llu MiB, %s sink, fails after %d, copies after %d, interrupted after %d us, left at %d, linger %u, discards %d%d, %u writers, march %d\n",
		(unsigned long long)s->seed,
		(unsigned long long)(s->granule / KIB),
		(unsigned long long)(s->buffer / MIB), sinks[s->sink],
		s->fails_after, s->copies_fail_after, s->interrupt_after,
		s->leave_at, s->linger, s->discards, s->late_discards,
		s->n_writers, s->march);
	for (unsigned i = 0; i < s->n_parts; i++)
		fprintf(stderr, "#   %-13s %5zu pages from %p\n",
			memory_kind_names[round->parts[i].memory.kind],
			round->parts[i].n_pages,
			(void *)round->parts[i].memory.at);
}

static void give_up(const struct round *round, const char *who)
{
	fprintf(stderr, "# %s for %llu s\n", who,
		(unsigned long long)(patience_ns() / 1000000000));
	describe(round);
	fprintf(stderr, "# phase %d, mode %d, verdict %d\n",
		atomic_load(&round->phase),
		round->capture ? (int)atomic_load(&round->capture->mode) : -1,
		round->capture ? atomic_load(&round->capture->verdict) : 0);
	abort();
}

static void *watch(void *data)
{
	(void)data;
	for (;;) {
		uint64_t began;

		usleep(50000);
		began = atomic_load(&round_began);
		if (began && now_ns() > began + 2 * patience_ns())
			give_up(atomic_load(&current), "the round hangs");
	}
	return NULL;
}

/* Every writer does something from now on. */
static void expect_all_move(struct round *round)
{
	uint64_t until = now_ns() + patience_ns();

	for (unsigned i = 0; i < round->n_started; i++) {
		struct writer *writer = &round->writers[i];
		uint64_t before = atomic_load(&writer->n_ops);

		/* What was under way may count as one. */
		while (atomic_load(&writer->n_ops) < before + 2) {
			if (now_ns() > until)
				give_up(round, "a writer sleeps");
			usleep(50);
		}
	}
}

/*
 * Between the engine and what it calls.
 */

bool __real_interrupt_pending(void);
bool __wrap_interrupt_pending(void);
int __real_uffd_unprotect(int uffd, struct range range);
int __wrap_uffd_unprotect(int uffd, struct range range);
int __real_uffd_try_unprotect(int uffd, struct range range);
int __wrap_uffd_try_unprotect(int uffd, struct range range);
int __real_capture_copy(struct capture *capture, struct region *region,
			struct range range, struct filler *filler);
int __wrap_capture_copy(struct capture *capture, struct region *region,
			struct range range, struct filler *filler);

bool __wrap_interrupt_pending(void)
{
	uint64_t at = atomic_load(&interrupt_at);

	return at && now_ns() >= at;
}

static void linger(const struct round *round)
{
	static const unsigned odds[] = { 0, 256, 24, 4 };
	unsigned one = odds[round->shape.linger];
	uint64_t random = thread_random();

	if (!one || random % one)
		return;
	if (random >> 32 & 1)
		pause_us((random >> 40) % 300);
	else
		for (unsigned i = 0; i < (random >> 40) % 4; i++)
			sched_yield();
}

int __wrap_capture_copy(struct capture *capture, struct region *region,
			struct range range, struct filler *filler)
{
	struct slab *slab = filler->slab;
	struct round *round = atomic_load(&current);
	struct part *part = &round->parts[region->number];
	size_t segment = slab->n_segments;
	int r;

	atomic_store(&round->copying, range.start);
	linger(round);
	if (round->shape.copies_fail_after >= 0 &&
	    atomic_fetch_sub(&round->n_copies_left, 1) <= 0)
		r = -EIO;
	else
		r = __real_capture_copy(capture, region, range, filler);
	if (r && r != -EAGAIN)
		atomic_store(&round->copy_failed, true);
	for (; !r && segment < slab->n_segments; segment++) {
		const struct segment *s = &slab->segments[segment];

		for (uint64_t page = s->first; page < s->first + s->n; page++)
			if (atomic_fetch_add(&part->copied[page], 1))
				complain("a page was copied twice");
	}
	linger(round);
	return r;
}

static void check_copied(struct round *round, struct range range)
{
	for (unsigned i = 0; i < round->shape.n_parts; i++) {
		struct part *part = &round->parts[i];
		uint64_t start = (uintptr_t)part->memory.at;

		for (size_t page = 0; page < part->n_pages; page++) {
			uint64_t addr = start + page * PAGE_SIZE;

			if (addr < range.start || addr >= range.end)
				continue;
			if (part->existed[page] &&
			    !atomic_load(&part->copied[page]))
				complain(
					"a page was released before it was copied");
		}
	}
}

static int unprotect(int (*real)(int, struct range), int uffd,
		     struct range range)
{
	struct round *round = atomic_load(&current);
	bool capturing = atomic_load(&round->phase) == PHASE_CAPTURING;
	int r;

	/* A snapshot that has failed releases everything. */
	if (capturing && !atomic_load(&round->copy_failed) &&
	    !atomic_load(&round->capture->verdict))
		check_copied(round, range);
	linger(round);
	r = real(uffd, range);
	linger(round);
	return r;
}

int __wrap_uffd_unprotect(int uffd, struct range range)
{
	return unprotect(__real_uffd_unprotect, uffd, range);
}

int __wrap_uffd_try_unprotect(int uffd, struct range range)
{
	return unprotect(__real_uffd_try_unprotect, uffd, range);
}

/*
 * The target: threads that write.
 */

/* A page near to where the engine works; false when that is nowhere. */
static bool choose_near(struct round *round, uint64_t *seed, struct part **part,
			size_t *page)
{
	uint64_t near = atomic_load(&round->copying);
	uint64_t ahead = next_random(seed) % (round->shape.granule / PAGE_SIZE);

	for (unsigned i = 0; i < round->shape.n_parts; i++) {
		struct part *p = &round->parts[i];
		uint64_t start = (uintptr_t)p->memory.at;

		if (near < start || near >= start + p->n_pages * PAGE_SIZE)
			continue;
		*part = p;
		*page = (near - start) / PAGE_SIZE + ahead;
		return *page < p->n_pages;
	}
	return false;
}

static void spin(uint64_t n)
{
	while (n--)
		__asm__ volatile("pause");
}

/* All writers go through the first part side by side, so that one faults on a
 * page while it is released for another; or they go where the engine is; or to
 * one place; or anywhere. */
static uint8_t *choose_page(struct round *round, uint64_t *seed,
			    struct part **part, size_t *page)
{
	uint64_t what = next_random(seed) % 4;

	*part = &round->parts[next_random(seed) % round->shape.n_parts];
	*page = next_random(seed) % (*part)->n_pages;
	if (round->shape.march && next_random(seed) % 8) {
		*part = &round->parts[0];
		*page = atomic_fetch_add(&round->step, 1) /
			round->shape.n_writers % (*part)->n_pages;
		spin(next_random(seed) % 512);
	} else if (what == 0) {
		*page %= 40;
	} else if (what == 1) {
		struct part *near = *part;
		size_t at;

		if (choose_near(round, seed, &near, &at)) {
			*part = near;
			*page = at;
		}
	}
	return (*part)->memory.at + *page * PAGE_SIZE;
}

/* The writers race with one another by design: atomically. */
static void write_words(uint8_t *at, size_t len, uint64_t value)
{
	for (size_t i = 0; i < len; i += 8)
		__atomic_store_n((uint64_t *)(at + i), value + i,
				 __ATOMIC_RELAXED);
}

/* The kernel writes on our behalf; not by a function that sanitizers know. */
static void write_by_kernel(uint8_t *at, uint64_t value)
{
	int fds[2];

	if (pipe(fds))
		return;
	if (syscall(SYS_write, fds[1], &value, sizeof(value)) !=
		    sizeof(value) ||
	    syscall(SYS_read, fds[0], at, sizeof(value)) != sizeof(value))
		complain("read(2) into the target failed");
	close(fds[0]);
	close(fds[1]);
}

static void discard(struct round *round, struct part *part, size_t page,
		    uint64_t *seed)
{
	enum phase phase = atomic_load(&round->phase);
	size_t n = min_u64(1 + next_random(seed) % 32, part->n_pages - page);
	uint8_t *at = part->memory.at + page * PAGE_SIZE;

	if (phase == PHASE_ARMING ? !round->shape.discards
				  : !round->shape.late_discards)
		return;
	if (part->memory.kind == MEMFD)
		madvise(at, n * PAGE_SIZE, MADV_REMOVE);
	else if (part->memory.kind <= ANON_HUGE)
		madvise(at, n * PAGE_SIZE, MADV_DONTNEED);
}

static void write_once(struct round *round, uint64_t *seed)
{
	struct part *part;
	size_t page;
	uint8_t *at = choose_page(round, seed, &part, &page);
	size_t offset = next_random(seed) % (PAGE_SIZE / 8) * 8;

	switch (next_random(seed) % 16) {
	case 0:
		write_by_kernel(at + offset, *seed);
		break;
	case 1:
		write_words(at, min_u64(4, part->n_pages - page) * PAGE_SIZE,
			    *seed);
		break;
	case 2:
	case 3:
		/* Maps what does not exist: the zero page, or a clean one. */
		(void)__atomic_load_n((uint64_t *)at, __ATOMIC_RELAXED);
		break;
	case 4:
		discard(round, part, page, seed);
		break;
	default:
		write_words(at + offset, 8, *seed);
	}
}

static void *write_memory(void *data)
{
	struct writer *writer = data;
	struct round *round = writer->round;

	while (!atomic_load(&round->stop)) {
		pthread_rwlock_rdlock(&round->frozen);
		for (int i = 0; i < 8; i++)
			write_once(round, &writer->seed);
		pthread_rwlock_unlock(&round->frozen);
		atomic_fetch_add(&writer->n_ops, 1);
	}
	return NULL;
}

/*
 * The sink.
 */

static void take(struct round *round, const struct held *held)
{
	struct part *part = &round->parts[held->part];

	memcpy(part->got + held->first * PAGE_SIZE, held->data,
	       held->n * PAGE_SIZE);
	for (uint64_t i = held->first; i < held->first + held->n; i++)
		part->given[i]++;
}

static int sink_wait(void *opaque)
{
	struct round *round = opaque;
	size_t i;

	if (!round->n_held)
		return 0;
	if (one_in(&round->sink_seed, 8))
		pause_us(next_random(&round->sink_seed) % 500);
	i = next_random(&round->sink_seed) % round->n_held;
	take(round, &round->held[i]);
	hold_put(round->held[i].hold);
	round->held[i] = round->held[--round->n_held];
	return 1;
}

static void sink_drain(void *opaque)
{
	while (sink_wait(opaque))
		;
}

static int sink_put(void *opaque, unsigned number, uint64_t first, uint64_t n,
		    const void *data, struct hold *hold)
{
	struct held held = { number, first, n, data, hold };
	struct round *round = opaque;
	uint64_t *seed = &round->sink_seed;

	if (number >= round->shape.n_parts ||
	    first + n > round->parts[number].n_pages) {
		complain("the sink was given what is no page");
		return -EPROTO;
	}
	if (round->shape.fails_after >= 0 && !round->n_puts_left--)
		return -ENOSPC;
	switch (round->shape.sink) {
	case SINK_SLOW:
		pause_us(n / 4);
		break;
	case SINK_STALLS:
		if (one_in(seed, 32))
			pause_us(next_random(seed) % 20000);
		break;
	case SINK_HOLDS:
		if (one_in(seed, 4))
			break;
		if (round->n_held == MAX_HELD)
			sink_wait(round);
		hold_get(hold);
		round->held[round->n_held++] = held;
		return 0;
	default:
		break;
	}
	take(round, &held);
	return 0;
}

/*
 * A round, from its seed.
 */

static struct shape make_shape(uint64_t seed)
{
	struct shape s = { .seed = seed };
	uint64_t random = seed;

	for (int i = 0; i < 8; i++)
		next_random(&random);
	s.n_parts = 1 + (unsigned)(next_random(&random) % MAX_PARTS);
	s.n_writers = 1 + (unsigned)(next_random(&random) % MAX_WRITERS);
	s.granule = PAGE_SIZE << next_random(&random) % 10;
	s.buffer = (16 + next_random(&random) % 32) * MIB;
	s.sink = (enum sink_kind)(next_random(&random) % N_SINK_KINDS);
	s.linger = (unsigned)(next_random(&random) % 4);
	s.fails_after = s.copies_fail_after = -1;
	s.interrupt_after = s.leave_at = -1;
	s.discards = one_in(&random, 3);
	s.march = one_in(&random, 3);
	if (s.march)
		s.granule = PAGE_SIZE << next_random(&random) % 3;
	switch (next_random(&random) % 12) {
	case 0:
		s.fails_after = (int)(next_random(&random) % 64);
		break;
	case 1:
		s.interrupt_after = (int)(next_random(&random) % 20000);
		break;
	case 2:
		s.leave_at = (int)(next_random(&random) % 5);
		break;
	case 3:
		s.late_discards = true;
		break;
	case 4:
		s.copies_fail_after = (int)(next_random(&random) % 64);
		break;
	default:
		break;
	}
	return s;
}

static void part_init(struct part *part)
{
	size_t n = part->memory.len / PAGE_SIZE;

	part->n_pages = n;
	part->existed = calloc(n, sizeof(*part->existed));
	part->copied = calloc(n, 1);
	part->given = calloc(n, 1);
	part->expected = mmap(NULL, n * PAGE_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	part->got = mmap(NULL, n * PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(part->expected, MAP_FAILED);
	assert_ptr_not_equal(part->got, MAP_FAILED);
}

static void part_deinit(struct part *part)
{
	munmap(part->expected, part->n_pages * PAGE_SIZE);
	munmap(part->got, part->n_pages * PAGE_SIZE);
	free(part->existed);
	free(part->copied);
	free(part->given);
	memory_unmap(&part->memory);
}

/* Its rest becomes a part of its own: they meet inside of an extent. */
static void split_part(struct memory *memory, struct memory *rest,
		       uint64_t *seed)
{
	size_t len = ROUND_UP(next_random(seed) % memory->len + 1,
			      memory->kind >= HUGETLB ? PMD_SIZE : PAGE_SIZE);

	if (len >= memory->len)
		len = memory->len / 2 / PMD_SIZE * PMD_SIZE;
	*rest = *memory;
	rest->mapping = NULL;
	rest->fd_offset += len;
	rest->at += len;
	rest->len -= len;
	memory->len = len;
}

static void map_parts(struct round *round, uint64_t *seed)
{
	unsigned n = round->shape.n_parts;

	for (unsigned i = 0; i < n; i++) {
		struct memory *memory = &round->parts[i].memory;
		enum memory_kind kind =
			round->shape.march && !i
				? ANON_SMALL
				: next_random(seed) % N_MEMORY_KINDS;
		size_t len =
			(1 + next_random(seed) % (MAX_BYTES / n / PAGE_SIZE)) *
			PAGE_SIZE;
		unsigned skew =
			one_in(seed, 3)
				? 0
				: (unsigned)(next_random(seed) % PMD_PAGES);

		if (kind >= HUGETLB)
			len = min_u64(len, 8 * MIB);
		/* Not every machine has them. */
		if (!memory_map(memory, kind, len, skew))
			assert_true(
				memory_map(memory, kind % HUGETLB, len, skew));
		if (i + 1 < n && memory->len >= 2 * PMD_SIZE &&
		    one_in(seed, 3)) {
			split_part(memory, &round->parts[i + 1].memory, seed);
			i++;
		}
	}
}

static bool page_is_wanted(unsigned pattern, size_t page, uint64_t random)
{
	switch (pattern) {
	case 0:
		return true;
	case 1:
		return false;
	case 2:
		return page / PMD_PAGES % 3 && page % 7;
	case 3:
		return random & 1;
	case 4:
		return page % PMD_PAGES == 17;
	default:
		return random % 64 == 0;
	}
}

/* For a march: a page in each extent, so that it is armed, and the zero page
 * for the rest. When that is released it is not writable yet, and a fault that
 * comes late sleeps (userfaultfd_must_wait() in the kernel). */
static void populate(struct part *part, bool march, uint64_t *seed)
{
	unsigned pattern = march ? 4 : (unsigned)(next_random(seed) % 6);
	bool read_rest = march || one_in(seed, 3);

	for (size_t page = 0; page < part->n_pages; page++) {
		uint8_t *at = part->memory.at + page * PAGE_SIZE;

		if (page_is_wanted(pattern, page, next_random(seed)))
			write_words(at, PAGE_SIZE, *seed);
		else if (read_rest && part->memory.kind < HUGETLB)
			(void)__atomic_load_n((uint64_t *)at, __ATOMIC_RELAXED);
	}
}

static void start_writers(struct round *round, uint64_t *seed)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&round->frozen, &attr);
	for (unsigned i = 0; i < round->shape.n_writers; i++) {
		struct writer *writer = &round->writers[i];

		writer->round = round;
		writer->seed = next_random(seed);
		assert_int_equal(pthread_create(&writer->thread, NULL,
						write_memory, writer),
				 0);
		round->n_started++;
	}
}

static void stop_writers(struct round *round)
{
	expect_all_move(round);
	atomic_store(&round->stop, true);
	for (unsigned i = 0; i < round->n_started; i++)
		pthread_join(round->writers[i].thread, NULL);
	pthread_rwlock_destroy(&round->frozen);
}

static void make_capture(struct round *round)
{
	struct capture_space space = {
		.pid = getpid(),
		.pidfd = self.pidfd,
		.pagemap_fd = self.pagemap_fd,
		.mem_fd = -1,
	};
	struct capture_config config = {
		.buffer_bytes = round->shape.buffer,
		.granule_bytes = round->shape.granule,
		.sink = { sink_put, sink_wait, sink_drain, NULL, round },
	};

	space.uffd = open_uffd(&config.markers);
	assert_int_equal(capture_new(&round->capture, &config), 0);
	assert_int_equal(capture_add_space(round->capture, &space), 0);
	for (unsigned i = 0; i < round->shape.n_parts; i++) {
		struct memory *m = &round->parts[i].memory;
		struct region_desc desc = {
			.range = { (uintptr_t)m->at,
				   (uintptr_t)m->at + m->len },
			.page_size = m->kind >= HUGETLB ? PMD_SIZE : PAGE_SIZE,
			.fd = m->fd,
			.fd_offset = m->fd_offset,
			.shared = m->fd >= 0,
		};

		assert_int_equal(capture_add_region(round->capture, &desc), 0);
	}
}

static int mark_existing(struct range run, unsigned flags, void *data)
{
	struct part *part = data;
	uint64_t start = (uintptr_t)part->memory.at;

	/* What is not present is a marker; swapped pages are not counted on. */
	if (flags & PAGEMAP_PRESENT)
		for (uint64_t at = run.start; at < run.end; at += PAGE_SIZE)
			part->existed[(at - start) / PAGE_SIZE] = true;
	return 0;
}

/* Pages of a file exist without being mapped. */
static void mark_file(struct part *part)
{
	const struct memory *m = &part->memory;
	off_t end = (off_t)(m->fd_offset + m->len);
	off_t hole = (off_t)m->fd_offset, data;

	while ((data = lseek(m->fd, hole, SEEK_DATA)) >= 0 && data < end) {
		hole = lseek(m->fd, data, SEEK_HOLE);
		for (off_t at = data; at < hole && at < end;
		     at += (off_t)PAGE_SIZE)
			part->existed[((uint64_t)at - m->fd_offset) /
				      PAGE_SIZE] = true;
	}
}

/*
 * What the memory holds now. Nothing is read that does not exist: that would
 * change what does. A read puts pages into a file, too, and into hugetlb
 * memory, unseen by the engine: these are zeros and may be left out.
 */
static void look_at_memory(struct part *part)
{
	struct range range = { (uintptr_t)part->memory.at,
			       (uintptr_t)part->memory.at + part->memory.len };

	assert_int_equal(
		pagemap_walk(self.pagemap_fd, range, mark_existing, part), 0);
	if (part->memory.kind == MEMFD)
		mark_file(part);
	for (size_t i = 0; i < part->n_pages; i++) {
		uint8_t *copy = part->expected + i * PAGE_SIZE;

		if (!part->existed[i])
			continue;
		memcpy(copy, part->memory.at + i * PAGE_SIZE, PAGE_SIZE);
		if (part->memory.kind >= MEMFD && !copy[0] &&
		    !memcmp(copy, copy + 1, PAGE_SIZE - 1))
			part->existed[i] = false;
	}
}

static uint64_t *read_words(const struct part *part)
{
	uint64_t *words = calloc(part->n_pages, sizeof(*words));
	uint64_t first = (uintptr_t)part->memory.at / PAGE_SIZE;

	assert_int_equal(io_pread_full(self.pagemap_fd, words,
				       part->n_pages * sizeof(*words),
				       first * sizeof(*words)),
			 0);
	return words;
}

/* In the instant: whatever exists, or is held to exist, and is not captured. */
static void check_protected(struct round *round, unsigned number)
{
	struct part *part = &round->parts[number];
	struct region *region = round->capture->regions[number];
	uint64_t *words = read_words(part);

	for (size_t i = 0; i < part->n_pages; i++)
		if ((part->existed[i] || bitmap_test(&region->populated, i)) &&
		    !atomic_load(&part->copied[i]) &&
		    !(words[i] & WORD_PROTECTED))
			complain_of(number, i,
				    "a page is not protected in the instant");
	free(words);
}

/* When all is over. */
static void check_unprotected(struct round *round, unsigned number)
{
	struct part *part = &round->parts[number];
	uint64_t *words = read_words(part);

	for (size_t i = 0; i < part->n_pages; i++)
		if (words[i] & WORD_PROTECTED)
			complain_of(number, i, "a page is left protected");
	free(words);
}

static void check_result(struct round *round)
{
	struct capture_stats *stats = calloc(1, sizeof(*stats));
	uint64_t n_given = 0;

	for (unsigned i = 0; i < round->shape.n_parts; i++) {
		struct part *part = &round->parts[i];

		for (size_t page = 0; page < part->n_pages; page++) {
			size_t at = page * PAGE_SIZE;

			n_given += part->given[page];
			if (part->given[page] > 1)
				complain("a page was given twice");
			if (part->existed[page] && !part->given[page])
				complain_of(i, page, "a page was forgotten");
			if (memcmp(part->expected + at, part->got + at,
				   PAGE_SIZE))
				complain_of(i, page,
					    "a page is not of the instant");
		}
	}
	capture_get_stats(round->capture, stats);
	if (stats->pages_copied != n_given)
		complain("the figures count other pages than were given");
	if (stats->peak_buffer_bytes > round->shape.buffer)
		complain("more memory was used than allowed");
	free(stats);
}

static int take_instant(struct round *round)
{
	int r;

	pthread_rwlock_wrlock(&round->frozen);
	for (unsigned i = 0; i < round->shape.n_parts; i++)
		look_at_memory(&round->parts[i]);
	r = capture_rearm(round->capture);
	for (unsigned i = 0; !r && i < round->shape.n_parts; i++)
		check_protected(round, i);
	atomic_store(&round->phase, PHASE_CAPTURING);
	pthread_rwlock_unlock(&round->frozen);
	return r;
}

/*
 * A fault on a block that is done is let go. It takes a race in the kernel: the
 * writer has seen the page protected, and goes to sleep after it was released.
 * This makes sure that there are such faults.
 */
static void protect_again(struct round *round, uint64_t *seed)
{
	struct region *region = round->capture->regions[0];
	uint64_t until = now_ns() + next_random(seed) % 20000000;

	do {
		uint64_t page = next_random(seed) % round->parts[0].n_pages;
		uint64_t addr = region_addr(region, page);

		if (bitmap_test(&region->done,
				region_block(region, addr).number))
			uffd_protect(region->space->desc.uffd,
				     (struct range){ addr, addr + PAGE_SIZE });
		pause_us(next_random(seed) % 100);
	} while (now_ns() < until);
}

/* Up to stage `leave_at`, or the first error, which is returned. */
static int run_stages(struct round *round, uint64_t *seed)
{
	int leave_at = round->shape.leave_at, r = 0;

	if (leave_at == 0)
		return 0;
	r = capture_arm(round->capture);
	if (r || leave_at == 1)
		return r;
	pause_us(next_random(seed) % 3000);
	r = capture_settle(round->capture);
	if (r || leave_at == 2)
		return r;
	r = take_instant(round);
	if (r || leave_at == 3)
		return r;
	if (round->shape.march)
		protect_again(round, seed);
	r = capture_run(round->capture);
	if (r || leave_at == 4)
		return r;
	/* All is captured, yet registered still: nobody must wait. */
	expect_all_move(round);
	r = capture_drain(round->capture);
	if (!r)
		check_result(round);
	return r;
}

static bool may_end_with(const struct shape *shape, int r)
{
	if (r == -ENOSPC)
		return shape->fails_after >= 0;
	if (r == -EIO)
		return shape->copies_fail_after >= 0;
	if (r == -EINTR)
		return shape->interrupt_after >= 0;
	if (r == RESULT_INCONSISTENT)
		return shape->late_discards;
	return !r;
}

static void run_round(uint64_t seed)
{
	struct round *round = calloc(1, sizeof(*round));
	uint64_t random = seed ^ 0x9e3779b97f4a7c15;
	int r;

	round->shape = make_shape(seed);
	round->sink_seed = next_random(&random);
	round->n_puts_left = round->shape.fails_after;
	atomic_store(&round->n_copies_left, round->shape.copies_fail_after);
	map_parts(round, &random);
	for (unsigned i = 0; i < round->shape.n_parts; i++) {
		part_init(&round->parts[i]);
		populate(&round->parts[i], round->shape.march && !i, &random);
	}
	atomic_store(&interrupt_at, 0);
	atomic_store(&current, round);
	atomic_store(&round_began, now_ns());
	if (getenv("OWNERSHIP_VERBOSE"))
		describe(round);

	start_writers(round, &random);
	make_capture(round);
	if (round->shape.interrupt_after >= 0)
		atomic_store(&interrupt_at,
			     now_ns() + (uint64_t)round->shape.interrupt_after *
						1000);
	r = run_stages(round, &random);
	/* An error lets everybody go at once. */
	if (r)
		expect_all_move(round);
	atomic_store(&round->phase, PHASE_OVER);
	round->capture = capture_free(round->capture);
	stop_writers(round);
	for (unsigned i = 0; i < round->shape.n_parts; i++)
		check_unprotected(round, i);

	if (!may_end_with(&round->shape, r))
		complain("an error that has no reason");
	if (atomic_load(&complaint)) {
		print_error("%s (returned %d; part %u, page %zu)\n",
			    atomic_load(&complaint), r, culprit.part,
			    culprit.page);
		describe(round);
		fail();
	}
	atomic_store(&round_began, 0);
	for (unsigned i = round->shape.n_parts; i-- > 0;)
		part_deinit(&round->parts[i]);
	free(round);
}

static void every_page_has_one_owner(void **state)
{
	uint64_t seconds = env_number("OWNERSHIP_SECONDS", 10);
	uint64_t until = now_ns() + seconds * 1000000000;
	uint64_t seed = env_number("OWNERSHIP_SEED", now_ns() | 1);
	pthread_t watchdog;
	unsigned n = 0;

	(void)state;
	self_open(&self);
	assert_int_equal(pthread_create(&watchdog, NULL, watch, NULL), 0);
	print_message("OWNERSHIP_SEED=%#llx\n", (unsigned long long)seed);
	do {
		run_round(seed);
		next_random(&seed);
		n++;
	} while (now_ns() < until);
	print_message("%u rounds\n", n);
	pthread_cancel(watchdog);
	pthread_join(watchdog, NULL);
	self_close(&self);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_page_has_one_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
