/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* Keeps a stream of bytes at a rate, with bursts of a tenth of a second. */

#include <stdint.h>

struct pace {
	uint64_t rate;	 /* bytes a second; 0: no limit */
	uint64_t due_ns; /* when all that was let through would be done */
};

void pace_init(struct pace *pace, uint64_t bytes_per_second);

/* Lets `bytes` through, after a sleep if they come too early. */
void pace_wait(struct pace *pace, uint64_t bytes);
