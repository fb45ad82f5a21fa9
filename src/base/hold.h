/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Says that somebody still needs a piece of memory: a reference count whose
 * last release calls back. Any thread may take and release; who takes must be
 * sure that a reference exists already.
 */

#include <stdatomic.h>

struct hold {
	_Atomic unsigned n_refs;
	void (*released)(struct hold *hold);
};

/* Starts with one reference, the caller's. */
static inline void hold_init(struct hold *hold,
			     void (*released)(struct hold *hold))
{
	atomic_init(&hold->n_refs, 1);
	hold->released = released;
}

/* NULL is fine for both: memory that nobody waits to use again. */
static inline void hold_get(struct hold *hold)
{
	if (hold)
		atomic_fetch_add(&hold->n_refs, 1);
}

static inline void hold_put(struct hold *hold)
{
	if (hold && atomic_fetch_sub(&hold->n_refs, 1) == 1)
		hold->released(hold);
}
