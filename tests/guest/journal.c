/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal: a program inside the guest that convicts snapshots whose disk
 * and memory are not of one instant.
 *
 * Step s writes s all over slot s % N_SLOTS of a file, syncs it, and appends
 * a line to a log, which is synced too, so that the file system's own journal
 * has work. The step under way is kept in memory (struct mark). So, at any
 * instant, the newest step in the file is the one in memory or the one before,
 * and every other slot holds the last step that belongs to it.
 *
 * That is checked before each step, by reading the file past the page cache,
 * which is memory: a disk that is older than the memory lacks steps, a newer
 * one has some that were not done yet.
 *
 *	journal DIR
 *
 * Output, one write(2) a line, each REPORT_MS; the first bad slot ever, once
 * there is one:
 *
 *	journal: ready
 *	journal: seq=S check=clean | check=BAD slot=I want=S got=S
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLOT_LEN	4096
#define SLOT_WORDS	(SLOT_LEN / sizeof(uint64_t))
#define N_SLOTS		64
#define REPORT_MS	200
#define LOG_STEPS	1024	/* then it starts anew */

/* To be found in the image of a snapshot, at the start of a page. */
#define MARK_FIRST	0x6c616e72756f6a21ULL
#define MARK_LAST	0x217061732e6b6469ULL

struct mark {
	uint64_t first;
	uint64_t seq;
	uint64_t filler[SLOT_WORDS - 3];
	uint64_t last;
};

static struct mark mark __attribute__((aligned(4096)));
static uint64_t file[N_SLOTS][SLOT_WORDS] __attribute__((aligned(4096)));
static uint64_t slot[SLOT_WORDS] __attribute__((aligned(4096)));

static struct {
	bool bad;
	unsigned int slot;
	uint64_t want;
	uint64_t got;
} verdict;

static void __attribute__((format(printf, 1, 2))) print_line(const char *fmt,
							     ...)
{
	char line[256];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (write(STDOUT_FILENO, line, len) < 0)
		return;	/* nobody left to tell */
}

static void __attribute__((noreturn)) hang(const char *what)
{
	print_line("journal: ERROR %s: %s\n", what, strerror(errno));
	for (;;)
		pause();
}

static int open_in(const char *dir, const char *name, int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags, 0600);
	if (fd < 0)
		hang(path);
	return fd;
}

static void write_slot(int fd, uint64_t seq)
{
	for (size_t i = 0; i < SLOT_WORDS; i++)
		slot[i] = seq;
	if (pwrite(fd, slot, SLOT_LEN, (off_t)(seq % N_SLOTS) * SLOT_LEN) !=
	    SLOT_LEN)
		hang("slots: write");
}

static void convict(unsigned int i, uint64_t want, uint64_t got)
{
	if (verdict.bad)
		return;
	verdict.bad = true;
	verdict.slot = i;
	verdict.want = want;
	verdict.got = got;
}

/* What all steps up to `seq` must have left. */
static void check(int fd, uint64_t seq)
{
	if (pread(fd, file, sizeof(file), 0) != sizeof(file))
		hang("slots: read");
	for (unsigned int i = 0; i < N_SLOTS; i++) {
		uint64_t want = seq - (seq - i) % N_SLOTS;

		for (size_t k = 0; k < SLOT_WORDS; k++)
			if (file[i][k] != want)
				convict(i, want, file[i][k]);
	}
}

static void append(int fd, uint64_t seq)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "step %" PRIu64 "\n", seq);

	if (seq % LOG_STEPS == 0 && ftruncate(fd, 0))
		hang("log: truncate");
	if (write(fd, line, len) != len || fsync(fd))
		hang("log: write");
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void report(void)
{
	if (verdict.bad)
		print_line("journal: seq=%" PRIu64 " check=BAD slot=%u want=%"
			   PRIu64 " got=%" PRIu64 "\n", mark.seq, verdict.slot,
			   verdict.want, verdict.got);
	else
		print_line("journal: seq=%" PRIu64 " check=clean\n", mark.seq);
}

int main(int argc, char **argv)
{
	const char *dir = argc > 1 ? argv[1] : "/mnt";
	volatile uint64_t *seq = &mark.seq;
	uint64_t due = 0;
	int fd, direct, log;

	fd = open_in(dir, "slots", O_RDWR | O_CREAT | O_TRUNC);
	direct = open_in(dir, "slots", O_RDONLY | O_DIRECT);
	log = open_in(dir, "log", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
	/* From N_SLOTS on, so that no slot's step is 0. */
	for (*seq = N_SLOTS; *seq < 2 * N_SLOTS; ++*seq)
		write_slot(fd, *seq);
	--*seq;
	if (fsync(fd))
		hang("slots: sync");
	mark.first = MARK_FIRST;
	mark.last = MARK_LAST;
	print_line("journal: ready\n");

	for (;;) {
		check(direct, *seq);
		if (now_ms() >= due) {
			report();
			due = now_ms() + REPORT_MS;
		}
		++*seq;
		write_slot(fd, *seq);
		if (fdatasync(fd))
			hang("slots: sync");
		append(log, *seq);
	}
}
