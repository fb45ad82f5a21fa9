/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The echo: a program inside the guest that writes memory in step with a
 * process on the host which has the guest's RAM mapped.
 *
 * CELLS pages, SPACING apart, are marked with their number. Round n: the host
 * writes n to the cells 0, 2, 4, … in this order; once the last of them shows
 * it, the guest writes n to 1, 3, 5, …; once the last of these shows it, the
 * host goes on. So at any instant the words, in the order in which they are
 * written, never rise, and differ by no more than 1. A snapshot in which they
 * do shows different pages as of different moments.
 *
 *	le64 mark, le64 number of the cell, le64 round
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define MARK	0x6f6863652d6e6769ULL
#define CELLS	64
#define SPACING (256UL << 10)

static volatile uint64_t *cell(char *base, unsigned int i)
{
	return (volatile uint64_t *)(base + i * SPACING);
}

int main(void)
{
	char *base = mmap(NULL, CELLS * SPACING, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t seen = 0, now;

	if (base == MAP_FAILED || mlock(base, CELLS * SPACING))
		return 1;
	for (unsigned int i = 0; i < CELLS; i++) {
		cell(base, i)[1] = i;
		cell(base, i)[0] = MARK;
	}
	dprintf(STDOUT_FILENO, "echo: ready\n");
	for (;;) {
		now = cell(base, CELLS - 2)[2];
		if (now == seen) {
			usleep(0);
			continue;
		}
		for (unsigned int i = 1; i < CELLS; i += 2)
			cell(base, i)[2] = now;
		seen = now;
	}
}
