/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Has the calling process, and what it executes, be refused holes:
 * fallocate(2) with FALLOC_FL_PUNCH_HOLE or FALLOC_FL_ZERO_RANGE fails with
 * EOPNOTSUPP, as on a file system that has none. By seccomp; 0 or -errno.
 */
int deny_punching(void);
