/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* A growing list of process ids. No logging. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct pid_list {
	pid_t *pids; /* to be freed, or handed on */
	size_t n, size;
};

/* 0 or -ENOMEM. */
int pid_list_append(struct pid_list *list, pid_t pid);

/* Appends the decimal numbers of a text, as cgroup.procs and children have
 * them, up to the first that is none. */
int pid_list_parse(struct pid_list *list, const char *text);

bool pid_is_in(pid_t pid, const pid_t *pids, size_t n);
