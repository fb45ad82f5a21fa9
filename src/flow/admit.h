/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Whether an open target lets itself be infected and stopped, before it is
 * touched. What changes after that is met by those who do it.
 */

#include <stdbool.h>

#include "target/target.h"

/*
 * *obstacle is NULL, or a sentence about the target, to be freed. `all`: every
 * thread is to stop, and children are followed, as is done with who is no VM;
 * or else the main thread alone. 0, or -errno, logged.
 */
int admit_find_obstacle(const struct target *target, bool all, char **obstacle);

/* The same for who is to be dumped: RESULT_UNSUPPORTED, logged, when there is
 * one. */
int admit(const struct target *target, bool all);
