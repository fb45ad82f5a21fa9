/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that contrib/bench-core dumps, and the judge of its dumps.
 *
 *	victim run MIB huge|small
 *	victim judge FILE OFFSET MIB
 *
 * `run` fills MIB of anonymous memory, prints "memory ADDRESS LENGTH", and
 * writes: write number n goes to the 8-byte word place_of(n), and is n.  Words
 * not written yet hold the complement of their index.  So whoever has a copy of
 * the memory can tell whether it is of one instant.
 *
 * The writer looks at the clock after each write, and each TICK_MS keeps a
 * sample in memory of its own: neither the kernel nor the disk is asked for
 * anything meanwhile.  At SIGTERM all samples are printed, a line each:
 * "sample NS WRITES GAP_NS", the time being CLOCK_MONOTONIC, WRITES of all
 * until then, and GAP_NS the longest time between two writes since the sample
 * before.  So a gap longer than TICK_MS ends with a sample.  Before them come
 * the gaps of more than LONG_GAP_MS, as far as there is room: "gap END_NS
 * GAP_NS".
 *
 * `judge` reads such memory from FILE at OFFSET and prints the number of the
 * last write in it; it fails if an earlier one is missing.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define MIB	      (1UL << 20)
#define HUGE_SIZE     (2 * MIB)
#define TICK_MS	      10
#define N_SAMPLES_MAX (1 << 17) /* twenty minutes */
#define LONG_GAP_MS   1
#define N_GAPS_MAX    (1 << 16)
#define N_REPLAYED    (UINT64_C(1) << 26)
#define NS_PER_S      UINT64_C(1000000000)

struct sample {
	uint64_t tsc;
	uint64_t n_writes;
	uint64_t gap; /* in ticks of the TSC */
};

struct gap {
	uint64_t end; /* TSC */
	uint64_t len;
};

struct moment {
	uint64_t tsc;
	uint64_t ns;
};

struct victim {
	uint64_t *words;
	uint64_t n_words;
	uint64_t tick; /* in ticks of the TSC */
	uint64_t long_gap;
	atomic_bool stop;
	size_t n_samples;
	size_t n_gaps;
	struct gap gaps[N_GAPS_MAX];
	struct sample samples[N_SAMPLES_MAX];
};

/* splitmix64, scaled to n_words. */
static uint64_t place_of(uint64_t n, uint64_t n_words)
{
	uint64_t z = n * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return (uint64_t)(((unsigned __int128)z * n_words) >> 64);
}

static struct moment moment_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (struct moment){
		.tsc = __rdtsc(),
		.ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec,
	};
}

static double ns_per_tick(struct moment a, struct moment b)
{
	return (double)(b.ns - a.ns) / (double)(b.tsc - a.tsc);
}

static void *write_all_the_time(void *arg)
{
	struct victim *v = arg;
	uint64_t last = __rdtsc(), next = last + v->tick, longest = 0, n = 0;

	while (!atomic_load_explicit(&v->stop, memory_order_relaxed)) {
		uint64_t now;

		n++;
		*(volatile uint64_t *)&v->words[place_of(n, v->n_words)] = n;
		now = __rdtsc();
		if (now - last > longest)
			longest = now - last;
		if (now - last > v->long_gap && v->n_gaps < N_GAPS_MAX)
			v->gaps[v->n_gaps++] = (struct gap){ now, now - last };
		last = now;
		if (now < next)
			continue;
		if (v->n_samples == N_SAMPLES_MAX)
			break;
		v->samples[v->n_samples++] = (struct sample){ now, n, longest };
		longest = 0;
		next = now + v->tick;
	}
	return NULL;
}

static int memory_new(struct victim *v, size_t len, bool huge)
{
	char *start = mmap(NULL, len + HUGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t skip;

	if (start == MAP_FAILED)
		return -errno;
	skip = -(uintptr_t)start & (HUGE_SIZE - 1);
	if (skip)
		munmap(start, skip);
	start += skip;
	munmap(start + len, HUGE_SIZE - skip);
	if (madvise(start, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		return -errno;

	v->words = (uint64_t *)start;
	v->n_words = len / sizeof(*v->words);
	for (uint64_t i = 0; i < v->n_words; i++)
		v->words[i] = ~i;
	return 0;
}

static void all_print(const struct victim *v, struct moment origin)
{
	double scale = ns_per_tick(origin, moment_now());

	for (size_t i = 0; i < v->n_gaps; i++) {
		double ns = scale * (double)(v->gaps[i].end - origin.tsc);

		printf("gap %" PRIu64 " %.0f\n", origin.ns + (uint64_t)ns,
		       scale * (double)v->gaps[i].len);
	}
	for (size_t i = 0; i < v->n_samples; i++) {
		const struct sample *s = &v->samples[i];
		double ns = scale * (double)(s->tsc - origin.tsc);

		printf("sample %" PRIu64 " %" PRIu64 " %.0f\n",
		       origin.ns + (uint64_t)ns, s->n_writes,
		       scale * (double)s->gap);
	}
}

/* The other thread: sleeps, looks around, sleeps. */
static void wait_for_the_end(const sigset_t *end)
{
	const struct timespec nap = { .tv_nsec = 100 * 1000 * 1000 };

	while (sigtimedwait(end, NULL, &nap) < 0)
		;
}

static int run(size_t len, bool huge)
{
	static struct victim v;
	const struct timespec nap = { .tv_nsec = 50 * 1000 * 1000 };
	struct moment origin = moment_now();
	pthread_t writer;
	sigset_t end;
	int r;

	/* Whoever started it does not come to an end without it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &end, NULL);

	r = memory_new(&v, len, huge);
	if (r) {
		fprintf(stderr, "victim: memory: %s\n", strerror(-r));
		return EXIT_FAILURE;
	}
	nanosleep(&nap, NULL);
	v.tick = (uint64_t)(TICK_MS * 1e6 / ns_per_tick(origin, moment_now()));
	v.long_gap = v.tick * LONG_GAP_MS / TICK_MS;
	r = pthread_create(&writer, NULL, write_all_the_time, &v);
	if (r) {
		fprintf(stderr, "victim: thread: %s\n", strerror(r));
		return EXIT_FAILURE;
	}
	printf("memory %" PRIuPTR " %zu\n", (uintptr_t)v.words, len);
	fflush(stdout);

	wait_for_the_end(&end);
	atomic_store(&v.stop, true);
	pthread_join(writer, NULL);
	all_print(&v, origin);
	if (v.n_samples == N_SAMPLES_MAX) {
		fprintf(stderr, "victim: has run for too long\n");
		return EXIT_FAILURE;
	}
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* A core's segments need not be aligned. */
static uint64_t word_at(const char *memory, uint64_t i)
{
	uint64_t word;

	memcpy(&word, memory + i * sizeof(word), sizeof(word));
	return word;
}

/* Whether write n, or a later one to the same word, is there. */
static bool has_write(const char *memory, uint64_t n_words, uint64_t n)
{
	uint64_t i = place_of(n, n_words), word = word_at(memory, i);

	return word != ~i && word >= n;
}

static int judge_memory(const char *memory, uint64_t n_words)
{
	uint64_t last = 0, first;

	for (uint64_t i = 0; i < n_words; i++) {
		uint64_t n = word_at(memory, i);

		if (n == ~i)
			continue;
		if (!n || place_of(n, n_words) != i) {
			fprintf(stderr,
				"victim: word %" PRIu64 ": %#" PRIx64
				" was never written there\n",
				i, n);
			return EXIT_FAILURE;
		}
		if (n > last)
			last = n;
	}
	/* What is torn lacks some of the last writes. */
	first = last > N_REPLAYED ? last - N_REPLAYED : 1;
	for (uint64_t n = first; n < last; n++) {
		if (!has_write(memory, n_words, n)) {
			fprintf(stderr,
				"victim: write %" PRIu64 " is missing, %" PRIu64
				" is there\n",
				n, last);
			return EXIT_FAILURE;
		}
	}
	printf("%" PRIu64 "\n", last);
	return EXIT_SUCCESS;
}

static int judge(const char *path, uint64_t offset, size_t len)
{
	size_t skip = offset % (size_t)sysconf(_SC_PAGESIZE);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	const char *map;

	if (end >= 0 && (uint64_t)end < offset + len)
		errno = ENODATA;
	else if (end >= 0) {
		map = mmap(NULL, skip + len, PROT_READ, MAP_PRIVATE, fd,
			   (off_t)(offset - skip));
		if (map != MAP_FAILED)
			return judge_memory(map + skip, len / sizeof(uint64_t));
	}
	fprintf(stderr, "victim: %s: %s\n", path, strerror(errno));
	return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "run"))
		return run(strtoul(argv[2], NULL, 0) * MIB,
			   !strcmp(argv[3], "huge"));
	if (argc == 5 && !strcmp(argv[1], "judge"))
		return judge(argv[2], strtoull(argv[3], NULL, 0),
			     strtoul(argv[4], NULL, 0) * MIB);
	fprintf(stderr, "usage: victim run MIB huge|small | "
			"judge FILE OFFSET MIB\n");
	return 2;
}
