/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/proctree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sys/procfs.h"
#include "sys/procstat.h"

struct list {
	pid_t *pids;
	size_t n, size;
};

static int append(struct list *list, pid_t pid)
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

static bool is_alive(pid_t pid)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	struct proc_stat stat;

	return proc_fd >= 0 && !procstat_read(proc_fd, 0, &stat) &&
	       stat.state != 'Z' && stat.state != 'X';
}

static int add_children_of_thread(struct list *list, int proc_fd, pid_t tid)
{
	_cleanup_free_ char *text = NULL;
	char name[48], *at, *end;
	int r;

	snprintf(name, sizeof(name), "task/%d/children", tid);
	r = io_read_file(proc_fd, name, MIB, &text, NULL);
	if (r == -ENOENT || r == -ESRCH)
		return 0; /* it has ended */
	for (at = text; !r; at = end) {
		pid_t pid = (pid_t)strtol(at, &end, 10);

		if (end == at)
			break;
		if (is_alive(pid))
			r = append(list, pid);
	}
	return r;
}

static int add_children(struct list *list, pid_t pid)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	_cleanup_free_ pid_t *tids = NULL;
	size_t n = 0;
	int r;

	if (proc_fd < 0)
		return proc_fd;
	r = procfs_read_threads(proc_fd, &tids, &n);
	for (size_t i = 0; !r && i < n; i++)
		r = add_children_of_thread(list, proc_fd, tids[i]);
	return r;
}

int proctree_list(pid_t pid, pid_t **pids, size_t *n)
{
	struct list list = {};
	int r = append(&list, pid);

	for (size_t i = 0; !r && i < list.n; i++) {
		r = add_children(&list, list.pids[i]);
		if (r == -ESRCH && i)
			r = 0;
	}
	if (r) {
		free(list.pids);
		return r;
	}
	*pids = list.pids;
	*n = list.n;
	return 0;
}
