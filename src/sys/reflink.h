/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Sharing of blocks between files (FICLONERANGE): on btrfs, XFS, bcachefs and
 * others a range becomes part of a second file, copy on write, with no byte
 * moved and no space taken. Logs nothing.
 */

#include <stdint.h>

/*
 * Makes [to_at, to_at + len) of file `to` share what file `from` has at
 * `from_at`. All three are multiples of the file system's block size, `len` is
 * not 0. 0; -EXDEV or -EOPNOTSUPP where there is no such sharing, -EINVAL for
 * larger blocks or where a range is not in the file, or -errno.
 */
int reflink_range(int from, uint64_t from_at, int to, uint64_t to_at,
		  uint64_t len);
