/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/pace.h"

#include <time.h>

#include "base/util.h"

#define BURST_NS 100000000

void pace_init(struct pace *pace, uint64_t bytes_per_second)
{
	*pace = (struct pace){ .rate = bytes_per_second };
}

void pace_wait(struct pace *pace, uint64_t bytes)
{
	uint64_t now;

	if (!pace->rate)
		return;
	now = now_ns();
	pace->due_ns = max_u64(pace->due_ns, now) +
		       (uint64_t)((double)bytes * 1e9 / (double)pace->rate);
	if (pace->due_ns > now + BURST_NS) {
		uint64_t wait_ns = pace->due_ns - now - BURST_NS;
		struct timespec wait = { (time_t)(wait_ns / 1000000000),
					 (long)(wait_ns % 1000000000) };

		nanosleep(&wait, NULL);
	}
}
