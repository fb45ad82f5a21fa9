/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "target/target.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "sys/cgroup.h"
#include "sys/pidfd.h"

/* Logs and returns the refusal of a target. */
#define refuse(...)                     \
	({                              \
		log_error(__VA_ARGS__); \
		RESULT_UNSUPPORTED;     \
	})

static int no_permission(pid_t pid)
{
	return refuse(
		"pid %d: no permission to trace it; run snapuffd as root or with CAP_SYS_PTRACE",
		pid);
}

static int open_handles(struct target *target, pid_t pid)
{
	target->pid = pid;
	target->proc_fd = procfs_open(pid);
	target->pidfd = pidfd_from_pid(pid);
	if (target->proc_fd == -ESRCH || target->pidfd == -ESRCH)
		return refuse("pid %d: no such process", pid);
	/* A thread's id opens as /proc/TID, but is no process. */
	if (target->pidfd == -EINVAL || target->pidfd == -ENOENT)
		return refuse(
			"pid %d: is a thread, not a process; give its process id",
			pid);
	if (target->proc_fd < 0)
		return log_errno(target->proc_fd, "pid %d: /proc/%d: %m", pid,
				 pid);
	if (target->pidfd < 0)
		return log_errno(target->pidfd, "pid %d: pidfd_open: %m", pid);
	return 0;
}

static int refuse_traced(pid_t pid, pid_t tracer)
{
	char name[64];

	procfs_read_name(tracer, name, sizeof(name));
	return refuse(
		"pid %d: is traced by process %d (%s); detach that debugger first",
		pid, tracer, name);
}

static int check_state(const struct target *target)
{
	const struct proc_status *status = &target->status;
	pid_t pid = target->pid;

	if (status->tgid != pid)
		return refuse(
			"pid %d: is a thread of process %d; give that process id",
			pid, status->tgid);
	if (status->state == 'Z' && status->n_threads > 1)
		return refuse(
			"pid %d: its main thread has exited while others run on; such a process cannot be dumped",
			pid);
	if (status->state == 'Z' || status->state == 'X')
		return refuse(
			"pid %d: is a zombie: it has ended and has no memory",
			pid);
	if (status->kernel_thread)
		return refuse(
			"pid %d: is a kernel thread and has no memory of its own",
			pid);
	if (status->tracer_pid)
		return refuse_traced(pid, status->tracer_pid);
	if (status->state == 'T' || status->state == 't')
		return refuse(
			"pid %d: is stopped by a signal; continue it first (kill -CONT %d)",
			pid, pid);
	/* It would run nothing of ours, and we would wait in vain. */
	if (cgroup_holds(target->proc_fd))
		return refuse(
			"pid %d: its cgroup is frozen already; thaw that first",
			pid);
	return 0;
}

static int check_program(const struct target *target)
{
	_cleanup_close_ int fd = -1;
	unsigned char ident[EI_NIDENT];
	pid_t pid = target->pid;
	int r;

	fd = openat(target->proc_fd, "exe", O_RDONLY | O_CLOEXEC);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return no_permission(pid);
	if (fd < 0)
		return log_errno(-errno, "pid %d: cannot open its program: %m",
				 pid);
	r = io_pread_full(fd, ident, sizeof(ident), 0);
	if (r)
		return log_errno(r, "pid %d: cannot read its program: %m", pid);
	if (memcmp(ident, ELFMAG, SELFMAG) || ident[EI_CLASS] != ELFCLASS64)
		return refuse(
			"pid %d: is a 32-bit program; only 64-bit programs can be dumped",
			pid);
	return 0;
}

/* A descriptor that nobody has: the kernel looks first whether we may trace. */
static bool may_attach(const struct target *target)
{
	return pidfd_take_fd(target->pidfd, -1) != -EPERM;
}

/* Who may trace it is not yet the owner of these files. */
static int check_pagemap(const struct target *target)
{
	_cleanup_close_ int fd =
		openat(target->proc_fd, "pagemap", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 || errno != EACCES)
		return 0;
	return refuse(
		"pid %d: no permission to open /proc/%d/pagemap: run snapuffd as root or with CAP_DAC_READ_SEARCH",
		target->pid, target->pid);
}

/* What /proc shows to those who may trace: the mappings. That is less than
 * ptrace(2) asks for. */
static int check_permission(const struct target *target)
{
	_cleanup_close_ int fd =
		openat(target->proc_fd, "maps", O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
		return may_attach(target) ? check_pagemap(target)
					  : no_permission(target->pid);
	if (errno == EACCES || errno == EPERM)
		return no_permission(target->pid);
	return log_errno(-errno, "pid %d: /proc/%d/maps: %m", target->pid,
			 target->pid);
}

int target_open(struct target *target, pid_t pid)
{
	int r;

	*target = TARGET_INIT;
	if (pid == getpid())
		return refuse("pid %d: is snapuffd itself", pid);
	r = open_handles(target, pid);
	if (r)
		return r;
	r = procfs_read_status(target->proc_fd, &target->status);
	if (r == -ESRCH)
		return refuse("pid %d: no such process", pid);
	if (r)
		return log_errno(r, "pid %d: /proc/%d/status: %m", pid, pid);

	r = check_state(target);
	if (!r)
		r = check_permission(target);
	if (!r)
		r = check_program(target);
	return r;
}

void target_close(struct target *target)
{
	close_fd(&target->pidfd);
	close_fd(&target->proc_fd);
}

int target_read_maps(const struct target *target, struct proc_maps *maps)
{
	int r = procfs_read_maps(target->proc_fd, maps);

	return r ? log_errno(r, "pid %d: /proc/%d/maps: %m", target->pid,
			     target->pid)
		 : 0;
}

/* By the descriptors that the target still holds: for who may not use
 * map_files, which takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN. */
static int open_by_target_fd(const struct target *target,
			     const struct proc_map *map)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_close_ int fd = -1;
	struct dirent *entry;
	struct stat st;

	fd = openat(target->proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	steal_fd(&fd);
	while ((entry = readdir(dir))) {
		if (fstatat(dirfd(dir), entry->d_name, &st, 0) ||
		    !S_ISREG(st.st_mode) || st.st_dev != map->dev ||
		    st.st_ino != map->inode)
			continue;
		fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
		return fd < 0 ? -errno : steal_fd(&fd);
	}
	return -ENOENT;
}

int target_try_open_mapped_file(const struct target *target,
				const struct proc_map *map)
{
	struct stat st;
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "map_files/%" PRIx64 "-%" PRIx64,
		 map->range.start, map->range.end);
	/* To open a device is to do something. */
	if (!fstatat(target->proc_fd, name, &st, 0) && !S_ISREG(st.st_mode))
		return -ENODEV;
	fd = openat(target->proc_fd, name, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? open_by_target_fd(target, map) : fd;
}

int target_open_mapped_file(const struct target *target,
			    const struct proc_map *map)
{
	int fd = target_try_open_mapped_file(target, map);

	if (fd < 0)
		return log_errno(
			fd,
			"pid %d: cannot open %s, which it maps at %#" PRIx64
			": %m",
			target->pid, map->path, map->range.start);
	return fd;
}
