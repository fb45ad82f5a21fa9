/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The judge: a program inside the guest that convicts torn snapshots.
 *
 * It writes pages in an order in which ONE sequence number says what every page
 * must hold.  Step s belongs to round r = s / N of N pages (a power of two) and
 * goes to page
 *
 *	(a_r * (s % N) + b_r) mod N,	a_r odd, both a hash of r
 *
 * which visits every page once a round.  The map is inverted as easily, so the
 * last step that touched any page before step S is known without any record of
 * it.  A snapshot that holds one page older or newer than its instant can't
 * agree with the S that it holds itself.
 *
 * Each step stamps the first, the middle and the last word of its page.  All
 * other words are constant filler, no page is zero or compresses.  What is
 * checked, by the writer itself, so that nothing races:
 *
 *  - before each write, that the page holds what the round before left there:
 *    a torn page is seen even if it is overwritten before the next full check;
 *  - every check_ms, all pages.
 *
 * A bad page is counted and repaired; the verdict stays TORN for good.
 *
 * Options come from /proc/cmdline and argv, the latter wins; defaults:
 *
 *	judge.mib=64		memory to write, rounded down to a power of two
 *	judge.mode=random	random, seq (page = s % N), idle (checks only)
 *	judge.rate=0		writes per second, 0: flat out
 *	judge.check_ms=1000	distance of the full checks, each prints a line
 *	judge.buckets=0		1: also a judge-bucket line per bucket_ms
 *	judge.bucket_ms=100
 *	judge.live=0		1: a judge-live line at the end of every bucket, also
 *				while nothing is checked; for benchmarks
 *	judge.thp=0		1: MADV_HUGEPAGE, 0: MADV_NOHUGEPAGE
 *
 * Output, one write(2) a line, latencies of single writes in microseconds:
 *
 *	judge: ready pages=N mode=M
 *	judge-bucket: t=MS writes=N p50=US p99=US max=US
 *	judge-live: t=MS end=MS writes=N bad=COUNT max=NS ns=NS:N,NS:N,...
 *	judge: seq=N writes=N rate=N/s p50=USus p99=USus p999=USus max=USus
 *		check=clean | check=TORN page=P want=S got=S bad=COUNT
 *
 * The pairs of a live line are a histogram: so many writes took at least so
 * many nanoseconds and less than an eighth of an octave more.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define PAGE_LEN	4096UL
#define PAGE_WORDS	(PAGE_LEN / sizeof(uint64_t))
#define HUGE_LEN	(2UL << 20)
#define WORD_FIRST	0
#define WORD_MIDDLE	(PAGE_WORDS / 2)
#define WORD_LAST	(PAGE_WORDS - 1)
#define STAMP_FACTOR	0x9e3779b97f4a7c15ULL

#define N_SAMPLES	4	/* filler words looked at per page and check */
#define N_BUCKETS_MAX	1024

/* Log-linear: 2^SUB_BITS linear steps per power of two, 3 % wide. */
#define SUB_BITS	5
#define N_SUB		(1U << SUB_BITS)
#define N_SLOTS		((64 - SUB_BITS + 1) * N_SUB)

/* What a live line shows is coarser, for the serial port is slow. */
#define LIVE_MASK	(~0ULL << (63 - 3))

enum mode {
	MODE_RANDOM,
	MODE_SEQ,
	MODE_IDLE,
};

static const char *const mode_names[] = { "random", "seq", "idle" };

struct options {
	uint64_t mib;
	enum mode mode;
	uint64_t rate;
	uint64_t check_ms;
	uint64_t bucket_ms;
	bool buckets;
	bool live;
	bool thp;
};

struct histogram {
	uint64_t n;
	uint64_t max;
	uint32_t slots[N_SLOTS];
};

/* page = mul * k + add, k = inv * (page - add), all mod n_pages */
struct round {
	uint64_t mul;
	uint64_t inv;
	uint64_t add;
};

struct bucket {
	uint64_t start_ms;
	uint64_t n_writes;
	double p50_us;
	double p99_us;
	double max_us;
};

struct verdict {
	uint64_t n_bad;
	uint64_t page;	/* these three: of the first bad page */
	uint64_t want;
	uint64_t got;
};

struct judge {
	struct options opt;
	uint64_t *words;
	uint64_t n_pages;
	uint64_t seq;		/* steps done; the next write is step seq */
	struct round round;	/* of step seq */
	struct round last;	/* the one before */
	struct verdict verdict;
	uint64_t n_checks;
	double ticks_per_us;
	uint64_t tick0;		/* the same instant on both clocks */
	double ms0;
	struct histogram line;
	struct histogram bucket;
	struct bucket buckets[N_BUCKETS_MAX];
	size_t n_buckets;
};

static struct judge judge;

static void print_line(const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (len >= (int)sizeof(line))
		len = sizeof(line) - 1;
	if (write(STDOUT_FILENO, line, len) < 0)
		return;	/* nobody left to tell */
}

/* The judge may be pid 1, whose exit would be a kernel panic. */
static void hang(const char *what)
{
	print_line("judge: error %s: %s\n", what, strerror(errno));
	for (;;)
		pause();
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static uint64_t filler(uint64_t page, uint64_t word)
{
	uint64_t x = (page * PAGE_WORDS + word + 1) * 0xd1342543de82ef95ULL;

	return x ^ (x >> 29);
}

/* histogram */

static unsigned int slot_of(uint64_t v)
{
	unsigned int shift;

	if (v < N_SUB)
		return v;
	shift = 63 - __builtin_clzll(v) - SUB_BITS;
	return (shift + 1) * N_SUB + ((v >> shift) & (N_SUB - 1));
}

static double slot_middle(unsigned int slot)
{
	unsigned int shift = slot / N_SUB;
	double low;

	if (!shift)
		return slot;
	shift--;
	low = (double)((uint64_t)(N_SUB + slot % N_SUB) << shift);
	return low + (double)(1ULL << shift) / 2;
}

static void histogram_add(struct histogram *h, uint64_t v)
{
	h->n++;
	h->slots[slot_of(v)]++;
	if (v > h->max)
		h->max = v;
}

static double histogram_at(const struct histogram *h, double quantile)
{
	uint64_t rank = (uint64_t)(quantile * (double)h->n);
	uint64_t seen = 0;
	double v;

	for (unsigned int i = 0; i < N_SLOTS; i++) {
		seen += h->slots[i];
		if (seen > rank) {
			v = slot_middle(i);
			return v < (double)h->max ? v : (double)h->max;
		}
	}
	return (double)h->max;
}

/* order of the pages */

/* Newton: each step doubles the number of right bits, an odd a has 3. */
static uint64_t inverse_odd(uint64_t a)
{
	uint64_t x = a;

	for (int i = 0; i < 5; i++)
		x *= 2 - a * x;
	return x;
}

static struct round round_at(uint64_t r)
{
	struct round round = { .mul = 1, .inv = 1, .add = 0 };

	if (judge.opt.mode != MODE_SEQ) {
		round.mul = mix(2 * r) | 1;
		round.inv = inverse_odd(round.mul);
		round.add = mix(2 * r + 1);
	}
	return round;
}

static uint64_t round_page(const struct round *round, uint64_t k)
{
	return (round->mul * k + round->add) & (judge.n_pages - 1);
}

static uint64_t round_index(const struct round *round, uint64_t page)
{
	return (round->inv * (page - round->add)) & (judge.n_pages - 1);
}

/* The step that wrote @page last, of all steps below judge.seq. */
static uint64_t step_expected(uint64_t page)
{
	uint64_t start = judge.seq & ~(judge.n_pages - 1);
	uint64_t k = round_index(&judge.round, page);

	if (start + k < judge.seq)
		return start + k;
	return start - judge.n_pages + round_index(&judge.last, page);
}

/* pages */

static void page_stamp(volatile uint64_t *page, uint64_t s)
{
	page[WORD_FIRST] = s;
	page[WORD_MIDDLE] = s * STAMP_FACTOR;
	page[WORD_LAST] = ~s;
}

static void page_fill(uint64_t *words, uint64_t page)
{
	for (uint64_t w = 0; w < PAGE_WORDS; w++)
		words[w] = filler(page, w);
}

/*
 * What the page says its step is: @want if all is well, else whatever the first
 * wrong word decodes to.
 */
static uint64_t page_read(const volatile uint64_t *words, uint64_t want)
{
	if (words[WORD_FIRST] != want)
		return words[WORD_FIRST];
	if (words[WORD_MIDDLE] != want * STAMP_FACTOR)
		return words[WORD_MIDDLE] * inverse_odd(STAMP_FACTOR);
	return ~words[WORD_LAST];
}

static bool filler_is_whole(const uint64_t *words, uint64_t page,
			    uint64_t salt, unsigned int n_samples)
{
	for (unsigned int i = 0; i < n_samples; i++) {
		uint64_t w = (page * 7 + (salt * N_SAMPLES + i) * 61) %
			     PAGE_WORDS;

		if (w == WORD_FIRST || w == WORD_MIDDLE || w == WORD_LAST)
			continue;
		if (words[w] != filler(page, w))
			return false;
	}
	return true;
}

static __attribute__((noinline)) void convict(uint64_t page, uint64_t want,
					      uint64_t got)
{
	uint64_t *words = judge.words + page * PAGE_WORDS;

	if (!judge.verdict.n_bad) {
		judge.verdict.page = page;
		judge.verdict.want = want;
		judge.verdict.got = got;
	}
	judge.verdict.n_bad++;
	page_fill(words, page);
	page_stamp(words, want);
}

static void page_check(uint64_t page, uint64_t want, uint64_t salt,
		       unsigned int n_samples)
{
	const uint64_t *words = judge.words + page * PAGE_WORDS;
	uint64_t got = page_read(words, want);

	if (got != want || !filler_is_whole(words, page, salt, n_samples))
		convict(page, want, got);
}

static void check_all(void)
{
	judge.n_checks++;
	for (uint64_t page = 0; page < judge.n_pages; page++)
		page_check(page, step_expected(page), judge.n_checks,
			   N_SAMPLES);
}

/* One step; returns the ticks that its stores took. */
static uint64_t step(void)
{
	uint64_t k = judge.seq & (judge.n_pages - 1);
	uint64_t page, want, start, end;
	uint64_t *words;

	page = round_page(&judge.round, k);
	words = judge.words + page * PAGE_WORDS;
	want = judge.seq - k - judge.n_pages + round_index(&judge.last, page);
	page_check(page, want, judge.seq / judge.n_pages, 1);

	start = __rdtsc();
	page_stamp(words, judge.seq);
	end = __rdtsc();
	if (!(++judge.seq & (judge.n_pages - 1))) {
		judge.last = judge.round;
		judge.round = round_at(judge.seq / judge.n_pages);
	}
	return end > start ? end - start : 0;
}

/* set-up */

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void clock_start(void)
{
	judge.ms0 = now_ms();
	judge.tick0 = __rdtsc();
}

/* Call a good while after clock_start(). */
static void clock_calibrate(void)
{
	double ms;

	while ((ms = now_ms() - judge.ms0) < 50)
		;
	judge.ticks_per_us = (double)(__rdtsc() - judge.tick0) / (ms * 1e3);
}

static uint64_t ticks_of_ms(uint64_t ms)
{
	return (uint64_t)((double)ms * 1e3 * judge.ticks_per_us);
}

static void memory_prepare(void)
{
	uint64_t len, want;
	char *raw;

	want = judge.opt.mib << 20;
	if (want < 2 * PAGE_LEN)
		want = 2 * PAGE_LEN;
	judge.n_pages = 1ULL << (63 - __builtin_clzll(want / PAGE_LEN));
	len = judge.n_pages * PAGE_LEN;

	raw = mmap(NULL, len + HUGE_LEN, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED)
		hang("mmap");
	raw = (char *)(((uintptr_t)raw + HUGE_LEN - 1) & ~(HUGE_LEN - 1));
	judge.words = (uint64_t *)raw;
	/* Either may be refused by a kernel without THP: nothing to lose. */
	madvise(raw, len, judge.opt.thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);

	for (uint64_t page = 0; page < judge.n_pages; page++)
		page_fill(judge.words + page * PAGE_WORDS, page);

	/* Round 0 is written here, so that every page always has a step. */
	judge.round = round_at(0);
	for (uint64_t k = 0; k < judge.n_pages; k++) {
		uint64_t page = round_page(&judge.round, k);

		page_stamp(judge.words + page * PAGE_WORDS, k);
	}
	judge.seq = judge.n_pages;
	judge.last = judge.round;
	judge.round = round_at(1);
}

static const char *option_value(const char *token, const char *name)
{
	size_t len = strlen(name);

	if (strncmp(token, name, len) || token[len] != '=')
		return NULL;
	return token + len + 1;
}

static void option_parse(struct options *opt, const char *token)
{
	struct {
		const char *name;
		uint64_t *value;
	} numbers[] = {
		{ "judge.mib", &opt->mib },
		{ "judge.rate", &opt->rate },
		{ "judge.check_ms", &opt->check_ms },
		{ "judge.bucket_ms", &opt->bucket_ms },
	};
	const char *v;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		v = option_value(token, numbers[i].name);
		if (v)
			*numbers[i].value = strtoull(v, NULL, 10);
	}
	if ((v = option_value(token, "judge.buckets")))
		opt->buckets = *v == '1';
	if ((v = option_value(token, "judge.live")))
		opt->live = *v == '1';
	if ((v = option_value(token, "judge.thp")))
		opt->thp = *v == '1';
	if (!(v = option_value(token, "judge.mode")))
		return;
	for (size_t i = 0; i < sizeof(mode_names) / sizeof(*mode_names); i++)
		if (!strcmp(v, mode_names[i]))
			opt->mode = i;
}

static void options_read(struct options *opt, int argc, char **argv)
{
	char line[4096];
	ssize_t len = 0;
	int fd;

	*opt = (struct options){
		.mib = 64,
		.mode = MODE_RANDOM,
		.check_ms = 1000,
		.bucket_ms = 100,
	};
	fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		len = read(fd, line, sizeof(line) - 1);
		close(fd);
	}
	line[len > 0 ? len : 0] = '\0';
	for (char *token = strtok(line, " \n"); token;
	     token = strtok(NULL, " \n"))
		option_parse(opt, token);
	for (int i = 1; i < argc; i++)
		option_parse(opt, argv[i]);
	if (!opt->check_ms)
		opt->check_ms = 1;
	if (!opt->bucket_ms)
		opt->bucket_ms = 1;
}

/* reports */

static double to_us(double ticks)
{
	return ticks / judge.ticks_per_us;
}

static void bucket_close(uint64_t start_tick)
{
	const struct histogram *h = &judge.bucket;

	if (judge.n_buckets < N_BUCKETS_MAX)
		judge.buckets[judge.n_buckets++] = (struct bucket){
			.start_ms = (uint64_t)(judge.ms0 +
				to_us((double)(start_tick - judge.tick0)) / 1e3),
			.n_writes = h->n,
			.p50_us = to_us(histogram_at(h, 0.5)),
			.p99_us = to_us(histogram_at(h, 0.99)),
			.max_us = to_us((double)h->max),
		};
}

static uint64_t live_step(unsigned int slot)
{
	uint64_t ns = (uint64_t)(to_us(slot_middle(slot)) * 1e3);

	return ns ? ns & (LIVE_MASK >> __builtin_clzll(ns)) : 0;
}

static double ms_of(uint64_t tick)
{
	return judge.ms0 + to_us((double)(tick - judge.tick0)) / 1e3;
}

static void print_live(uint64_t start_tick, uint64_t end_tick)
{
	const struct histogram *h = &judge.bucket;
	char line[4096];
	const char *comma = "";
	uint64_t n = 0;
	size_t len;

	len = snprintf(line, sizeof(line),
		       "judge-live: t=%.1f end=%.1f writes=%" PRIu64
		       " bad=%" PRIu64 " max=%.0f ns=", ms_of(start_tick),
		       ms_of(end_tick), h->n, judge.verdict.n_bad,
		       to_us((double)h->max) * 1e3);
	for (unsigned int i = 0; i < N_SLOTS; i++) {
		n += h->slots[i];
		if (!n || (i + 1 < N_SLOTS && live_step(i) == live_step(i + 1)))
			continue;
		if (len > sizeof(line) - 48)
			break;
		len += snprintf(line + len, sizeof(line) - len,
				"%s%" PRIu64 ":%" PRIu64, comma, live_step(i),
				n);
		comma = ",";
		n = 0;
	}
	line[len++] = '\n';
	if (write(STDOUT_FILENO, line, len) < 0)
		return;	/* nobody left to tell */
}

static void print_buckets(void)
{
	for (size_t i = 0; i < judge.n_buckets; i++) {
		const struct bucket *b = &judge.buckets[i];

		print_line("judge-bucket: t=%" PRIu64 " writes=%" PRIu64
			   " p50=%.2f p99=%.2f max=%.2f\n", b->start_ms,
			   b->n_writes, b->p50_us, b->p99_us, b->max_us);
	}
	judge.n_buckets = 0;
}

static void print_verdict(uint64_t ticks)
{
	const struct verdict *v = &judge.verdict;
	struct histogram *h = &judge.line;
	double seconds = to_us((double)ticks) / 1e6;
	char verdict[160] = "clean";

	if (v->n_bad)
		snprintf(verdict, sizeof(verdict),
			 "TORN page=%" PRIu64 " want=%" PRIu64 " got=%" PRIu64
			 " bad=%" PRIu64, v->page, v->want, v->got, v->n_bad);
	print_line("judge: seq=%" PRIu64 " writes=%" PRIu64 " rate=%.0f/s"
		   " p50=%.2fus p99=%.2fus p999=%.2fus max=%.2fus check=%s\n",
		   judge.seq, h->n, seconds > 0 ? (double)h->n / seconds : 0,
		   to_us(histogram_at(h, 0.5)), to_us(histogram_at(h, 0.99)),
		   to_us(histogram_at(h, 0.999)), to_us((double)h->max),
		   verdict);
	memset(h, 0, sizeof(*h));
}

static void sleep_ticks(uint64_t ticks)
{
	double us = to_us((double)ticks);
	struct timespec ts = {
		.tv_sec = (time_t)(us / 1e6),
		.tv_nsec = (long)(us * 1e3) % 1000000000L,
	};

	nanosleep(&ts, NULL);
}

/*
 * Of a millisecond or more, writes come in bursts between them; and of 50 at
 * most, for a slow rate is no reason to be late with a check.
 */
static void nap_until(uint64_t due, uint64_t now, uint64_t ms_ticks)
{
	uint64_t ticks = due - now;

	if (ticks < ms_ticks)
		ticks = ms_ticks;
	if (ticks > 50 * ms_ticks)
		ticks = 50 * ms_ticks;
	sleep_ticks(ticks);
}

static void __attribute__((noreturn)) run(void)
{
	const struct options *opt = &judge.opt;
	const uint64_t check_ticks = ticks_of_ms(opt->check_ms);
	const uint64_t bucket_ticks = ticks_of_ms(opt->bucket_ms);
	const uint64_t ms_ticks = ticks_of_ms(1);
	const uint64_t write_ticks =
		opt->rate ? ticks_of_ms(1000) / opt->rate : 0;
	uint64_t line_start, bucket_start, due, now;

	line_start = bucket_start = due = now = __rdtsc();
	for (;;) {
		if (opt->mode != MODE_IDLE && (!write_ticks || now >= due)) {
			uint64_t ticks = step();

			histogram_add(&judge.line, ticks);
			if (opt->buckets || opt->live)
				histogram_add(&judge.bucket, ticks);
			due += write_ticks;
			/* After a stall, don't catch up with a burst. */
			if (due + 100 * ms_ticks < now)
				due = now;
		} else if (opt->mode == MODE_IDLE) {
			sleep_ticks(opt->live ? bucket_ticks : check_ticks);
		} else {
			nap_until(due, now, ms_ticks);
		}

		now = __rdtsc();
		if ((opt->buckets || opt->live) &&
		    now - bucket_start >= bucket_ticks) {
			if (opt->live)
				print_live(bucket_start, now);
			if (opt->buckets)
				bucket_close(bucket_start);
			memset(&judge.bucket, 0, sizeof(judge.bucket));
			bucket_start = now;
		}
		if (now - line_start >= check_ticks) {
			check_all();
			print_buckets();
			print_verdict(now - line_start);
			line_start = now = __rdtsc();
			due = now;
			bucket_start = now;
			memset(&judge.bucket, 0, sizeof(judge.bucket));
		}
	}
}

int main(int argc, char **argv)
{
	options_read(&judge.opt, argc, argv);
	clock_start();
	memory_prepare();
	clock_calibrate();
	print_line("judge: ready pages=%" PRIu64 " mode=%s\n", judge.n_pages,
		   mode_names[judge.opt.mode]);
	run();
}
