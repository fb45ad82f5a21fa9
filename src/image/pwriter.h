/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Positioned writes behind the caller's back: by io_uring, or, where that is
 * not allowed (a sysctl, a seccomp filter, no memory), by threads that call
 * pwrite. Writes may end in any order. One thread calls.
 *
 * The first failed write is what every later call returns; nothing more is
 * written then, but all buffers are still given back. No logging.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hold.h"

struct pwriter;

/* `depth`: how many writes may be under way at once. */
int pwriter_new(struct pwriter **out, unsigned depth, bool allow_uring);

/* Waits until nothing is under way, whatever became of it. Returns NULL. */
struct pwriter *pwriter_free(struct pwriter *writer);

/* "io_uring" or "threads". */
const char *pwriter_name(const struct pwriter *writer);

/*
 * Starts a write of all `len` bytes; takes a reference on `hold` for as long as
 * `buf` is needed. Waits for another write to end when `depth` are under way.
 * `fallback_fd` is written to where `fd`, opened with O_DIRECT, refuses the
 * write as misaligned (EINVAL).
 */
int pwriter_submit(struct pwriter *writer, int fd, int fallback_fd,
		   const void *buf, size_t len, uint64_t offset,
		   struct hold *hold);

/*
 * Waits until at least one write that is under way has ended. 1 when one has,
 * 0 when none was under way, or -errno.
 */
int pwriter_wait(struct pwriter *writer);

/* Waits until nothing is under way, whatever became of it. */
void pwriter_drain(struct pwriter *writer);
