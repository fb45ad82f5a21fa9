/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/procwait.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"
#include "sys/procstat.h"

void procwait_describe(int proc_fd, pid_t tid, char *text, size_t size)
{
	_cleanup_free_ char *name = NULL;
	struct proc_stat stat;
	char path[48];

	if (procstat_read(proc_fd, tid, &stat)) {
		snprintf(text, size, "gone");
		return;
	}
	snprintf(path, sizeof(path), "task/%d/wchan", tid);
	/* "0": it runs, or we may not know. */
	if (io_read_file(proc_fd, path, MIB, &name, NULL) ||
	    !strcspn(name, "0\n"))
		snprintf(text, size, "state %c", stat.state);
	else
		snprintf(text, size, "state %c, in %.*s", stat.state,
			 (int)strcspn(name, "\n"), name);
}
