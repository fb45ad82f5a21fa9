/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/pidlist.h"

#include <errno.h>
#include <stdlib.h>

int pid_list_append(struct pid_list *list, pid_t pid)
{
	if (list->n == list->size) {
		size_t size = list->size * 2 + 16;
		pid_t *pids = reallocarray(list->pids, size, sizeof(*pids));

		if (!pids)
			return -ENOMEM;
		list->pids = pids;
		list->size = size;
	}
	list->pids[list->n++] = pid;
	return 0;
}

int pid_list_parse(struct pid_list *list, const char *text)
{
	char *end;
	int r = 0;

	for (; !r; text = end) {
		pid_t pid = (pid_t)strtol(text, &end, 10);

		if (end == text)
			break;
		r = pid_list_append(list, pid);
	}
	return r;
}

bool pid_is_in(pid_t pid, const pid_t *pids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (pids[i] == pid)
			return true;
	return false;
}
