/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process of contrib/bench-core --held: what system calls cost it.
 *
 *	held MIB
 *
 * Fills MIB of memory, prints "ready", and answers each line "CALLS MS" on
 * stdin, CALLS being
 *
 *	getppid		a call that does nothing
 *	mmap		mmap(2) of four pages, a write to the first, munmap(2)
 *
 * with the nanoseconds that one round of that takes: it is repeated for MS.
 */

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MIB	 (1UL << 20)
#define MAP_LEN	 16384
#define NS_PER_S UINT64_C(1000000000)
#define BATCH	 32 /* rounds between looks at the clock */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void call_getppid(void)
{
	syscall(SYS_getppid);
}

static void map_and_unmap(void)
{
	char *at = mmap(NULL, MAP_LEN, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	*(volatile char *)at = 1;
	munmap(at, MAP_LEN);
}

static double time_of(void (*round)(void), uint64_t ms)
{
	uint64_t start = now_ns(), now, n = 0;

	do {
		for (int i = 0; i < BATCH; i++)
			round();
		n += BATCH;
		now = now_ns();
	} while (now - start < ms * 1000000);
	return (double)(now - start) / (double)n;
}

int main(int argc, char **argv)
{
	size_t len = argc > 1 ? strtoul(argv[1], NULL, 10) * MIB : 0;
	char *memory = len ? malloc(len) : NULL, calls[16];
	uint64_t ms;

	if (!memory) {
		fprintf(stderr, "held MIB\n");
		return 2;
	}
	for (size_t i = 0; i < len; i += 4096)
		memory[i] = (char)(i >> 12 | 1);
	puts("ready");
	fflush(stdout);
	while (scanf("%15s %" SCNu64, calls, &ms) == 2) {
		printf("%.1f\n", time_of(strcmp(calls, "mmap") ? call_getppid
							       : map_and_unmap,
					 ms));
		fflush(stdout);
	}
	return memory[0] == 1 ? 0 : 1;
}
