/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "victim.h"

/*
 * All threads of all processes write one journal, under one lock. Step s stamps
 * page s * JOURNAL_FACTOR mod n_pages, so what every page must hold follows
 * from the last step: a core in which one page, or one thread, is of another
 * instant convicts itself. Neighbours in order are no neighbours in memory:
 * what is copied from low to high addresses is torn all over.
 */
#define JOURNAL_FACTOR 0x9e3779b1UL /* odd */
#define BATCH	       32

struct journal {
	/* On a page of their own. */
	volatile uint64_t seq;
	uint64_t n_pages; /* a power of two */
	atomic_flag lock;
	uint8_t fill[PAGE_LEN - 2 * sizeof(uint64_t) - sizeof(atomic_flag)];
	volatile uint64_t pages[][PAGE_WORDS];
};

/* What the judge starts from. */
struct journal *journal;

static void step(void)
{
	uint64_t seq;

	while (atomic_flag_test_and_set_explicit(&journal->lock,
						 memory_order_acquire))
		sched_yield();
	for (unsigned int i = 0; i < BATCH; i++) {
		seq = ++journal->seq;
		victim_stamp(
			journal->pages[seq * JOURNAL_FACTOR % journal->n_pages],
			seq);
	}
	atomic_flag_clear_explicit(&journal->lock, memory_order_release);
}

static void *write_journal(void *unused)
{
	(void)unused;
	while (!atomic_load(&victim_stop)) {
		step();
		usleep(100);
	}
	return NULL;
}

static void start_threads(unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		victim_start("journal", write_journal, NULL);
}

static void run_child(unsigned int n_threads)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* The table is the child's own from here on. */
	atomic_store(&victim_n_threads, 0);
	start_threads(n_threads);
	for (;;)
		pause();
}

static void *map_small(size_t len, bool shared)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE,
			MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE), -1,
			0);

	if (at == MAP_FAILED)
		victim_die("journal: no memory");
	return at;
}

/* hugetlb pages: the first half private, the second of a memfd. */
static void *map_huge(size_t len)
{
	size_t half = (len / 2 + HUGE_LEN - 1) & -HUGE_LEN;
	int fd = memfd_create("victim-journal", MFD_CLOEXEC | MFD_HUGETLB);
	int prot = PROT_READ | PROT_WRITE;
	char *at;

	at = mmap(NULL, 2 * half + HUGE_LEN, PROT_NONE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED || fd < 0 || ftruncate(fd, (off_t)half))
		victim_die("journal: %s", strerror(errno));
	at += -(uintptr_t)at & (HUGE_LEN - 1);
	if (mmap(at, half, prot,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_FIXED, -1,
		 0) == MAP_FAILED ||
	    mmap(at + half, half, prot, MAP_SHARED | MAP_FIXED, fd, 0) ==
		    MAP_FAILED)
		victim_die("journal: hugetlb: %s", strerror(errno));
	close(fd);
	return at;
}

void journal_start(unsigned int n_threads, unsigned int n_children,
		   uint64_t n_pages, bool huge)
{
	size_t len = (n_pages + 1) * PAGE_LEN;

	if (n_pages == 0 || (n_pages & (n_pages - 1)))
		victim_die("journal: %lu pages", n_pages);
	journal = huge ? map_huge(len) : map_small(len, n_children);
	journal->n_pages = n_pages;
	while (journal->seq < 2 * n_pages)
		step();
	for (unsigned int i = 0; i < n_children; i++) {
		switch (fork()) {
		case -1:
			victim_die("journal: no child");
		case 0:
			run_child(n_threads);
		}
	}
	start_threads(n_threads);
}

void journal_check(void)
{
	uint64_t first;

	if (!journal)
		return;
	while (atomic_flag_test_and_set(&journal->lock))
		sched_yield();
	first = journal->seq - journal->n_pages + 1;
	for (uint64_t i = first; i <= journal->seq; i++) {
		if (!victim_is_stamped(journal->pages[i * JOURNAL_FACTOR %
						      journal->n_pages],
				       i))
			victim_die("journal: page of step %lu", i);
	}
	atomic_flag_clear(&journal->lock);
}

uint64_t journal_seq(void)
{
	return journal ? journal->seq : 0;
}

_Static_assert(offsetof(struct journal, pages) == PAGE_LEN,
	       "what changes at every step is on a page of its own");
