/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

/*
 * A thread for each way in which memory comes and goes, with a block each that
 * says what of it must be there. Fresh memory is zero where it is not written.
 */
enum churn_state {
	CHURN_NONE,    /* nothing can be said */
	CHURN_FILLING, /* n_done pages are stamped, the others are zero */
	CHURN_WHOLE,   /* all are stamped */
};

struct churn {
	char name[NAME_LEN];
	bool (*round)(struct churn *);
	/* In this order on the way up, the reverse on the way down. */
	volatile uint64_t *volatile at;
	volatile uint64_t n_pages;
	volatile uint64_t step;
	volatile uint64_t n_done;
	volatile int state;
	bool on;
	uint64_t n_rounds;
	uint64_t n_failed;
	unsigned int seed;
};

#define N_PAGES_MAX 2048
#define N_MOVED	    768

extern char **environ;

static void fill(struct churn *churn, void *at, uint64_t n_pages)
{
	churn->at = at;
	churn->n_pages = n_pages;
	churn->step++;
	churn->n_done = 0;
	churn->state = CHURN_FILLING;
	while (churn->n_done < n_pages) {
		victim_stamp(&churn->at[churn->n_done * PAGE_WORDS],
			     churn->step);
		churn->n_done++;
	}
	churn->state = CHURN_WHOLE;
}

static bool is_whole(const struct churn *churn)
{
	for (uint64_t i = 0; i < churn->n_pages; i++) {
		if (!victim_is_stamped(&churn->at[i * PAGE_WORDS], churn->step))
			return false;
	}
	return true;
}

static uint64_t some_pages(struct churn *churn)
{
	return 64 + (unsigned int)rand_r(&churn->seed) % (N_PAGES_MAX - 64);
}

static void *map(uint64_t n_pages, int flags, int fd)
{
	void *at = mmap(NULL, n_pages * PAGE_LEN, PROT_READ | PROT_WRITE, flags,
			fd, 0);

	if (at == MAP_FAILED)
		victim_die("churn: mmap: %s", strerror(errno));
	return at;
}

static void *map_fresh(uint64_t n_pages)
{
	return map(n_pages, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

/* Ends a block that was `map`ped. */
static bool unmap(struct churn *churn)
{
	bool whole = is_whole(churn);

	churn->state = CHURN_NONE;
	munmap((void *)churn->at, churn->n_pages * PAGE_LEN);
	return whole;
}

static bool round_unmap(struct churn *churn)
{
	uint64_t n_pages = some_pages(churn);

	fill(churn, map_fresh(n_pages), n_pages);
	return unmap(churn);
}

/* The heap's own blocks are not aligned: a page more. */
static bool round_free(struct churn *churn)
{
	uint64_t n_pages = some_pages(churn);
	char *block = malloc((n_pages + 1) * PAGE_LEN);
	uint64_t *at;
	bool whole;

	if (!block)
		victim_die("churn: malloc");
	at = (uint64_t *)(((uintptr_t)block + PAGE_LEN - 1) & -PAGE_LEN);
	/* It is not fresh. */
	memset(at, 0, n_pages * PAGE_LEN);
	fill(churn, at, n_pages);
	whole = is_whole(churn);
	churn->state = CHURN_NONE;
	free(block);
	return whole;
}

/* The same of pages of 2 MiB. */
static bool round_huge(struct churn *churn)
{
	uint64_t n_pages = N_PAGES_MAX;

	fill(churn, map(n_pages, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1),
	     n_pages);
	return unmap(churn);
}

static bool discard(struct churn *churn, int flags)
{
	bool whole = true;

	if (!churn->at)
		churn->at = map(N_PAGES_MAX,
				MAP_PRIVATE | MAP_ANONYMOUS | flags, -1);
	fill(churn, (void *)churn->at, N_PAGES_MAX);
	whole = is_whole(churn);
	churn->state = CHURN_NONE;
	madvise((void *)churn->at, N_PAGES_MAX * PAGE_LEN, MADV_DONTNEED);
	return whole && churn->at[0] == 0;
}

static bool round_discard(struct churn *churn)
{
	return discard(churn, 0);
}

static bool round_huge_discard(struct churn *churn)
{
	return discard(churn, MAP_HUGETLB);
}

/* Half of a mapping goes, then it grows again, then all of it moves. */
static bool round_remap(struct churn *churn)
{
	uint64_t n_pages = some_pages(churn) & ~1UL;
	void *at = map_fresh(n_pages);
	bool whole;

	fill(churn, at, n_pages);
	whole = is_whole(churn);
	churn->state = CHURN_NONE;
	at = mremap(at, n_pages * PAGE_LEN, n_pages / 2 * PAGE_LEN, 0);
	churn->n_pages = n_pages / 2;
	churn->state = CHURN_WHOLE;
	whole &= is_whole(churn);
	churn->state = CHURN_NONE;
	at = mremap(at, n_pages / 2 * PAGE_LEN, 2 * n_pages * PAGE_LEN,
		    MREMAP_MAYMOVE);
	if (at == MAP_FAILED)
		victim_die("churn: mremap: %s", strerror(errno));
	churn->at = at;
	churn->state = CHURN_WHOLE;
	whole &= is_whole(churn);
	churn->state = CHURN_NONE;
	memset(at, 0, n_pages / 2 * PAGE_LEN);
	fill(churn, at, 2 * n_pages);
	return whole & unmap(churn);
}

static void *move(void *from, uint64_t n_pages, int flags, void *to)
{
	void *at = mremap(from, n_pages * PAGE_LEN, n_pages * PAGE_LEN,
			  MREMAP_MAYMOVE | flags, to);

	if (at == MAP_FAILED)
		victim_die("churn: mremap: %s", strerror(errno));
	return at;
}

/* To an address of which nobody else knows. */
static void *move_away(void *from, uint64_t n_pages)
{
	void *to = mmap(NULL, n_pages * PAGE_LEN, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (to == MAP_FAILED)
		victim_die("churn: mmap: %s", strerror(errno));
	return move(from, n_pages, MREMAP_FIXED, to);
}

/* All of it, or its middle to and fro. Nothing of it ever goes, and the hole in
 * the middle stays mapped, so that no other thread is given it. */
static void move_somehow(struct churn *churn)
{
	char *at = (char *)churn->at, *middle = at + N_MOVED / 3 * PAGE_LEN;

	churn->state = CHURN_NONE;
	switch (rand_r(&churn->seed) % 4) {
	case 0:
		move(move(middle, N_MOVED / 3, MREMAP_DONTUNMAP, NULL),
		     N_MOVED / 3, MREMAP_FIXED, middle);
		break;
	case 1:
		churn->at = move(at, N_MOVED, MREMAP_DONTUNMAP, NULL);
		munmap(at, N_MOVED * PAGE_LEN);
		break;
	default:
		churn->at = move_away(at, N_MOVED);
	}
	churn->state = CHURN_WHOLE;
}

static bool round_move(struct churn *churn)
{
	bool whole = true;

	fill(churn, churn->at ? (void *)churn->at : map_fresh(N_MOVED),
	     N_MOVED);
	for (int i = 0; i < 64; i++)
		move_somehow(churn);
	whole &= is_whole(churn);
	/* Written to where it is now, right after the last move. */
	move_somehow(churn);
	churn->state = CHURN_NONE;
	memset((void *)churn->at, 0, N_MOVED * PAGE_LEN);
	return whole;
}

/* What one page table covers: a page that exists, and a block of pages behind
 * it that do not. */
#define EXTENT_PAGES 512UL
#define SLOW_PAGES   496UL
#define GROW_PAGES   16UL /* that are made accessible at once */

static void protect(volatile void *at, uint64_t n_pages, int protection)
{
	if (mprotect((void *)at, n_pages * PAGE_LEN, protection))
		victim_die("churn: mprotect: %s", strerror(errno));
}

static void *map_extent(int protection)
{
	const size_t len = EXTENT_PAGES * PAGE_LEN;
	char *at = mmap(NULL, 2 * len, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		victim_die("churn: mmap: %s", strerror(errno));
	at = (char *)(((uintptr_t)at + len - 1) & -len);
	madvise(at, len, MADV_NOHUGEPAGE);
	protect(at, EXTENT_PAGES, protection);
	protect(at, 1, PROT_READ | PROT_WRITE);
	victim_stamp((uint64_t *)at, 0);
	return at + PAGE_LEN;
}

/* So that most dumps find it half done. Of what is accessible. */
static void fill_slowly(struct churn *churn, bool grow)
{
	churn->n_pages = grow ? 0 : SLOW_PAGES;
	churn->step++;
	churn->n_done = 0;
	while (churn->n_done < SLOW_PAGES) {
		volatile uint64_t *page =
			&churn->at[churn->n_done * PAGE_WORDS];

		if (churn->n_done == churn->n_pages) {
			protect(page, GROW_PAGES, PROT_READ | PROT_WRITE);
			churn->n_pages += GROW_PAGES;
		}
		churn->state = CHURN_FILLING;
		victim_stamp(page, churn->step);
		churn->n_done++;
		usleep(500);
	}
	churn->state = CHURN_WHOLE;
}

static bool round_slowly(struct churn *churn, bool grow)
{
	bool whole;

	if (!churn->at)
		churn->at =
			map_extent(grow ? PROT_NONE : PROT_READ | PROT_WRITE);
	fill_slowly(churn, grow);
	whole = is_whole(churn);
	churn->state = CHURN_NONE;
	madvise((void *)churn->at, SLOW_PAGES * PAGE_LEN, MADV_DONTNEED);
	if (grow)
		protect(churn->at, SLOW_PAGES, PROT_NONE);
	return whole;
}

/* Pages come to be between others. */
static bool round_holes(struct churn *churn)
{
	return round_slowly(churn, false);
}

/* The same where nobody may look before, as a heap grows. */
static bool round_grow(struct churn *churn)
{
	return round_slowly(churn, true);
}

static bool round_punch(struct churn *churn)
{
	int fd = memfd_create("victim-churn", MFD_CLOEXEC);
	bool whole;

	if (fd < 0 || ftruncate(fd, N_PAGES_MAX * PAGE_LEN))
		victim_die("churn: memfd: %s", strerror(errno));
	fill(churn, map(N_PAGES_MAX, MAP_SHARED, fd), N_PAGES_MAX);
	whole = is_whole(churn);
	churn->state = CHURN_NONE;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		      N_PAGES_MAX * PAGE_LEN))
		victim_die("churn: punch: %s", strerror(errno));
	whole &= churn->at[0] == 0;
	fill(churn, (void *)churn->at, N_PAGES_MAX);
	close(fd);
	return whole & unmap(churn);
}

static bool round_protect(struct churn *churn)
{
	uint64_t n_pages = some_pages(churn);
	void *at = map_fresh(n_pages);

	fill(churn, at, n_pages);
	mprotect(at, n_pages * PAGE_LEN, PROT_READ);
	usleep(500);
	mprotect(at, n_pages * PAGE_LEN, PROT_NONE);
	usleep(500);
	mprotect(at, n_pages * PAGE_LEN, PROT_READ | PROT_WRITE);
	return unmap(churn);
}

static void *use_stack(void *argument)
{
	/* One page more, for it starts at some byte. */
	char block[33 * PAGE_LEN];
	struct churn *churn = argument;
	uint64_t *at =
		(uint64_t *)(((uintptr_t)block + PAGE_LEN - 1) & -PAGE_LEN);
	bool whole;

	memset(at, 0, 32 * PAGE_LEN);
	fill(churn, at, 32);
	whole = is_whole(churn);
	churn->state = CHURN_NONE;
	return whole ? churn : NULL;
}

static bool round_threads(struct churn *churn)
{
	void *whole = NULL;
	pthread_t thread;

	if (pthread_create(&thread, NULL, use_stack, churn) ||
	    pthread_join(thread, &whole))
		victim_die("churn: threads");
	return whole;
}

static bool wait_for(pid_t pid)
{
	int status = -1;

	if (waitpid(pid, &status, 0) != pid)
		victim_die("churn: waitpid: %s", strerror(errno));
	return status == 0;
}

static bool round_fork(struct churn *churn)
{
	uint64_t n_pages = some_pages(churn);
	bool whole;
	pid_t pid;

	fill(churn, map_fresh(n_pages), n_pages);
	pid = fork();
	if (pid < 0)
		victim_die("churn: fork: %s", strerror(errno));
	if (pid == 0) {
		/* Copy on write, of pages that may be protected. */
		whole = is_whole(churn);
		fill(churn, (void *)churn->at, n_pages);
		_exit(!(whole && is_whole(churn)));
	}
	whole = wait_for(pid);
	return whole & unmap(churn);
}

static bool round_exec(struct churn *churn)
{
	char *const argv[] = { "true", NULL };
	pid_t pid;

	(void)churn;
	if (posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ))
		victim_die("churn: spawn");
	return wait_for(pid);
}

/* What the judge reads. */
struct churn churns[] = {
	{ "unmap", round_unmap },
	{ "free", round_free },
	{ "discard", round_discard },
	{ "holes", round_holes },
	{ "grow", round_grow },
	{ "remap", round_remap },
	{ "move", round_move },
	{ "move2", round_move },
	{ "punch", round_punch },
	{ "protect", round_protect },
	{ "threads", round_threads },
	{ "fork", round_fork },
	{ "exec", round_exec },
	{ "huge", round_huge },
	{ "huge-discard", round_huge_discard },
};

#define N_CHURNS (sizeof(churns) / sizeof(churns[0]))

static void *run(void *argument)
{
	struct churn *churn = argument;

	churn->seed = (unsigned int)(churn - churns) + 1;
	while (!atomic_load(&victim_stop)) {
		churn->n_failed += !churn->round(churn);
		churn->n_rounds++;
		usleep(500);
	}
	return NULL;
}

void churn_start(const char *kinds)
{
	char *list = strdup(kinds), *rest = list, *kind;
	size_t i;

	while ((kind = strsep(&rest, ","))) {
		for (i = 0; i < N_CHURNS && strcmp(churns[i].name, kind); i++)
			;
		if (i == N_CHURNS)
			victim_die("churn: %s: what?", kind);
		churns[i].on = true;
		victim_start(churns[i].name, run, &churns[i]);
	}
	free(list);
	usleep(100000);
}

void churn_report(void)
{
	for (size_t i = 0; i < N_CHURNS; i++) {
		if (churns[i].on)
			victim_say("churn %s rounds=%lu failed=%lu",
				   churns[i].name, churns[i].n_rounds,
				   churns[i].n_failed);
	}
}
