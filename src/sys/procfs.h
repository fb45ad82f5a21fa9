/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * /proc/PID as typed data. Every function takes a descriptor of the directory
 * /proc/PID, so that a recycled pid is noticed (-ESRCH) and never mistaken for
 * the target. The text is the target's to a degree (names, paths): bounded,
 * never trusted. Formats: proc(5), Documentation/filesystems/proc.rst.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/util.h"

struct proc_status {
	char name[64];
	char state; /* R, S, D, T, t, Z, X, I */
	pid_t tgid;
	pid_t ppid;	  /* 0: none that we see */
	pid_t tracer_pid; /* 0: none */
	uid_t euid;
	gid_t egid;
	int seccomp; /* 0 off, 1 strict, 2 filter */
	bool no_new_privs;
	bool kernel_thread;
	unsigned n_threads;
};

struct proc_map {
	struct range range;
	bool read, write, exec, shared;
	uint64_t offset; /* bytes into the file */
	dev_t dev;
	ino_t inode; /* 0: no file */
	char *path;  /* never NULL; "" when there is none */
};

struct proc_maps {
	struct proc_map *maps; /* ascending, not overlapping */
	size_t n_maps;
};

/* Returns a descriptor of /proc/PID, or -ESRCH, or -errno. */
int procfs_open(pid_t pid);

/* Whether it runs the same file as process `pid`, and both are there. */
bool procfs_runs_program_of(int proc_fd, pid_t pid);

int procfs_read_status(int proc_fd, struct proc_status *status);

/* The same of one thread. */
int procfs_read_thread_status(int proc_fd, pid_t tid,
			      struct proc_status *status);

/* What a process calls itself, for people; "?" when that cannot be read. */
void procfs_read_name(pid_t pid, char *name, size_t size);

/* Reads all mappings; the caller owns `maps`. */
int procfs_read_maps(int proc_fd, struct proc_maps *maps);
void proc_maps_deinit(struct proc_maps *maps);
/* The mapping that holds `addr`, or NULL. */
const struct proc_map *proc_maps_find(const struct proc_maps *maps,
				      uint64_t addr);

/* Thread ids, to be freed by the caller. */
int procfs_read_threads(int proc_fd, pid_t **tids, size_t *n_tids);

struct proc_syscall {
	long nr;
	uint64_t args[6];
};

/*
 * The system call in which a thread sleeps; a negative nr: it sleeps elsewhere.
 * -EAGAIN: it runs; -ESRCH: it has ended; -EPERM where one may not attach to
 * it.
 */
int procfs_read_syscall(int proc_fd, pid_t tid, struct proc_syscall *call);

/* argv, NULL-terminated, one allocation for free(). */
int procfs_read_argv(int proc_fd, char ***argv, size_t *n_args);

/* What a symlink below /proc/PID (exe, fd/3, …) shows; to be freed. */
int procfs_read_link(int proc_fd, const char *name, char **target);

/*
 * Opens a path as the process sees it: in its mount namespace, under its root,
 * from its working directory. A close-on-exec descriptor, or -errno. The path
 * is the target's: open with O_PATH what may be anything, a device included.
 */
int procfs_open_path(int proc_fd, const char *path, int flags);

/* One field of /proc/meminfo ("MemAvailable"), in bytes. */
int procfs_read_meminfo(const char *field, uint64_t *bytes);
