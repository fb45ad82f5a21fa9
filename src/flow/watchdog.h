/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A process that sees to it that nobody of the target waits for longer than is
 * allowed, whatever becomes of the dumper: its disk hangs, it is stopped, it
 * gets no processor. It looks at what the dumper says of itself (base/watch.h).
 * When somebody waits for too long it has the dumper give up, as Ctrl-C does,
 * waking it if it was stopped; and kills it if that does not help within a
 * moment: the kernel then lets everybody go, and a keeper continues the VM.
 *
 * Forked before the dumper has threads or touches anything. It needs nothing
 * but the memory that it shares with the dumper, so a disk that hangs does not
 * concern it, and is favoured by the scheduler where it may be: a limit of the
 * processor's time (cpu.max) does not hold for it then.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/watch.h"

struct watchdog {
	struct watch *watch; /* NULL: nobody watches */
	pid_t pid;
};

#define WATCHDOG_INIT ((struct watchdog){ .pid = -1 })

/* `target` is for messages. `max_stall_ns` 0: none is started. 0 or -errno,
 * logged. */
int watchdog_start(struct watchdog *dog, pid_t target, uint64_t max_stall_ns);

/* Whether it has had the dump given up: then it tells why. */
bool watchdog_stop(struct watchdog *dog);

static inline void watchdog_stopp(struct watchdog *dog)
{
	watchdog_stop(dog);
}

#define _cleanup_watchdog_ _cleanup_(watchdog_stopp)
