/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What this kernel can do, asked of the kernel itself, never of its version
 * number: distributions backport, and configurations differ.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum probe_state {
	PROBE_YES,
	PROBE_NO,	/* missing, and something else takes its place */
	PROBE_REQUIRED, /* missing, and no dump works without it */
};

struct probe_result {
	const char *name; /* "userfaultfd write-protect" */
	enum probe_state state;
	const char *use; /* what it is for, or what its lack costs */
};

/* What write protection by userfaultfd does here; tried on pages of ours. */
struct probe_protection {
	bool shows; /* in pagemap, without which no dump can be trusted */
	bool spans; /* several mappings with one call */
};

void probe_protection(struct probe_protection *found);

#define PROBE_MAX 16

/* Fills at most PROBE_MAX results; returns how many. */
size_t probe_kernel(struct probe_result *results);
