/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/proctree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "sys/pidlist.h"
#include "sys/procfs.h"
#include "sys/procstat.h"

static int add_children_of_thread(struct pid_list *list, int proc_fd, pid_t tid)
{
	_cleanup_free_ char *text = NULL;
	struct pid_list children = {};
	char name[48];
	int r;

	snprintf(name, sizeof(name), "task/%d/children", tid);
	r = io_read_file(proc_fd, name, MIB, &text, NULL);
	if (r == -ENOENT || r == -ESRCH)
		return 0; /* it has ended */
	if (!r)
		r = pid_list_parse(&children, text);
	for (size_t i = 0; !r && i < children.n; i++)
		if (procstat_is_alive(children.pids[i]))
			r = pid_list_append(list, children.pids[i]);
	free(children.pids);
	return r;
}

static int add_children(struct pid_list *list, pid_t pid)
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
	struct pid_list list = {};
	int r = pid_list_append(&list, pid);

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
