/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Landlock (landlock(7), since 5.13): what a process may still do with files, a
 * right for whole directories; with newer kernels no TCP port (6.7), and no
 * signal or abstract socket of processes outside (6.12). No logging.
 */

/* Read below `read_fd`, make and write files below `write_fd`, both O_PATH, -1:
 * none; nothing else. Needs no_new_privs. 0; -EOPNOTSUPP or -ENOSYS where the
 * kernel has it not; -errno. */
int landlock_restrict(int read_fd, int write_fd);
