/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What the micro-benchmarks share: a target, which is a child process with
 * memory of one kind that writes on command, and quantiles.
 *
 * They print figures and ratios on stdout and never fail for a time; they exit
 * with 77 where the host lacks what they measure. BENCH_MIB sets how much
 * memory is used, BENCH_ROUNDS how often things are repeated.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "capture/capture.h"

#define need(cond)                                            \
	do {                                                  \
		if (!(cond))                                  \
			bench_die(__FILE__, __LINE__, #cond); \
	} while (0)

_Noreturn void bench_die(const char *file, int line, const char *what);
_Noreturn void bench_skip(const char *why);

/* An environment variable, or its default. */
uint64_t bench_env(const char *name, uint64_t otherwise);

enum target_kind {
	TARGET_SMALL, /* anonymous, 4 KiB pages */
	TARGET_HUGE,  /* anonymous, THP */
	TARGET_MEMFD, /* 4 KiB pages */
	N_TARGET_KINDS,
};

extern const char *const target_kind_names[N_TARGET_KINDS];

/* The child's memory is all populated, and nothing but memory is shared. */
struct target {
	enum target_kind kind;
	pid_t pid;
	int sock;
	int memfd;     /* -1: anonymous */
	uint64_t addr; /* in the child */
	size_t len;
	int pidfd, proc_fd, pagemap_fd;
	uint64_t features; /* of userfaultfd, as asked for */
	struct target_shared *shared;
};

void target_start(struct target *target, enum target_kind kind, size_t len);
void target_stop(struct target *target);

/* A new userfaultfd of the child's memory. */
int target_open_uffd(struct target *target, bool nonblocking);

/*
 * The child writes a word to each of `n` steps of `step` bytes, in an order of
 * its own, and takes the time of every one. Begin returns at once.
 */
void target_begin_writes(struct target *target, size_t n, size_t step);
/* Waits for the end: the time of all, in ns; *ns holds that of each, sorted. */
uint64_t target_end_writes(struct target *target, const uint64_t **ns,
			   size_t *n);

/* The child writes to random pages until told to stop. */
void target_begin_load(struct target *target);
void target_end_load(struct target *target);

/* A capture of the child's memory whose pages go nowhere. */
struct capture *target_capture(struct target *target, uint64_t granule,
			       uint64_t buffer);

/* Of sorted numbers, in µs. */
double quantile_us(const uint64_t *sorted, size_t n, double q);

void sort_u64(uint64_t *values, size_t n);
double median(double *values, size_t n);

static inline double gb_per_s(uint64_t bytes, uint64_t ns)
{
	return (double)bytes / (double)ns;
}
