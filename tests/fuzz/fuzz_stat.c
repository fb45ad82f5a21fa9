/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "sys/cgroup.h"
#include "sys/pidlist.h"
#include "sys/procfs.h"
#include "sys/procpins.h"
#include "sys/procsig.h"
#include "sys/procstat.h"

/*
 * The small files of /proc/PID: stat, status, a thread's status and syscall, a
 * list of numbers such as children, and cgroup.
 */
static void put_all(struct fuzz_input *input, char **numbers)
{
	struct fuzz_part status;

	mkdirat(fuzz_dir(), "task", 0700);
	mkdirat(fuzz_dir(), "task/1", 0700);
	mkdirat(fuzz_dir(), "fd", 0700);
	fuzz_put("stat", fuzz_next_part(input));
	status = fuzz_next_part(input);
	fuzz_put("status", status);
	fuzz_put("task/1/status", status);
	fuzz_put("task/1/syscall", fuzz_next_part(input));
	*numbers = fuzz_string(fuzz_next_part(input));
	fuzz_put("cgroup", fuzz_next_part(input));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_input input = FUZZ_INPUT(data, len);
	struct cgroup cgroup = CGROUP_INIT;
	struct pid_list list = {};
	struct proc_status status;
	struct proc_syscall call;
	struct proc_creds creds;
	struct proc_pins pins;
	struct proc_stat stat;
	struct procsig sig;
	char *numbers;
	pid_t ns_tid;

	put_all(&input, &numbers);
	if (!procstat_read(fuzz_dir(), 0, &stat))
		fuzz_require(memchr(stat.name, 0, sizeof(stat.name)));
	if (!procfs_read_status(fuzz_dir(), &status))
		fuzz_require(memchr(status.name, 0, sizeof(status.name)));
	procstat_read_creds(fuzz_dir(), &creds);
	free(creds.groups);
	procstat_read_ns_tid(fuzz_dir(), 1, &ns_tid);
	procsig_read(fuzz_dir(), 1, &sig);
	procpins_read(fuzz_dir(), &pins);
	procfs_read_syscall(fuzz_dir(), 1, &call);
	pid_list_parse(&list, numbers);
	free(list.pids);
	free(numbers);
	cgroup_open(&cgroup, fuzz_dir());
	cgroup_close(&cgroup);
	cgroup_holds(fuzz_dir());
	return 0;
}
