/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The shed: a program inside the guest that holds memory which matters, until
 * the balloon moves. Then it lets go of all of it, so that the balloon, or
 * free-page reporting, gives it to the host. A snapshot of before must have it.
 *
 *	shed MIB
 *
 *	shed: holds pages=N
 *	shed: clean pages=N | TORN page=P bad=COUNT	every half a second
 *	shed: let go
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_WORDS 512UL
#define STEP	   64UL /* words between those that are looked at */
#define POLL_US	   20000
#define CHECK_POLLS 25

static uint64_t expected(uint64_t word)
{
	return (word + 1) * 0x9e3779b97f4a7c15ULL;
}

/* Pages that any balloon has taken or given back so far. */
static uint64_t balloon_moves(void)
{
	FILE *vmstat = fopen("/proc/vmstat", "r");
	uint64_t sum = 0, value;
	char name[64];

	while (vmstat && fscanf(vmstat, "%63s %" SCNu64, name, &value) == 2)
		if (!strcmp(name, "balloon_inflate") ||
		    !strcmp(name, "balloon_deflate"))
			sum += value;
	if (vmstat)
		fclose(vmstat);
	return sum;
}

static void check(const volatile uint64_t *words, uint64_t n)
{
	uint64_t bad = 0, first = 0;

	for (uint64_t i = 0; i < n; i += STEP)
		if (words[i] != expected(i) && !bad++)
			first = i / PAGE_WORDS;
	if (bad)
		dprintf(STDOUT_FILENO,
			"shed: TORN page=%" PRIu64 " bad=%" PRIu64 "\n", first,
			bad);
	else
		dprintf(STDOUT_FILENO, "shed: clean pages=%" PRIu64 "\n",
			n / PAGE_WORDS);
}

int main(int argc, char **argv)
{
	size_t len = (argc > 1 ? strtoull(argv[1], NULL, 10) : 32) << 20;
	uint64_t n = len / sizeof(uint64_t), start;
	uint64_t *words = mmap(NULL, len, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (words == MAP_FAILED)
		return 1;
	/* Free blocks of this size are what is reported. */
	madvise(words, len, MADV_HUGEPAGE);
	for (uint64_t i = 0; i < n; i += STEP)
		words[i] = expected(i);
	start = balloon_moves();
	dprintf(STDOUT_FILENO, "shed: holds pages=%" PRIu64 "\n",
		n / PAGE_WORDS);
	for (unsigned int poll = 1; balloon_moves() == start; poll++) {
		if (poll % CHECK_POLLS == 0)
			check(words, n);
		usleep(POLL_US);
	}
	munmap(words, len);
	dprintf(STDOUT_FILENO, "shed: let go\n");
	for (;;)
		pause();
}
