/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* As many descriptors as this process may have at all (RLIMIT_NOFILE). A limit
 * that cannot be raised stays. */
void rlimit_raise_files(void);
