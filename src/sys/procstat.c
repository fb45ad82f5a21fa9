/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/procstat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"
#include "sys/procfs.h"

#define TEXT_MAX MIB

static int read_text(int proc_fd, pid_t tid, const char *name, char **text)
{
	char path[64];
	int r;

	if (tid)
		snprintf(path, sizeof(path), "task/%d/%s", tid, name);
	else
		snprintf(path, sizeof(path), "%s", name);
	r = io_read_file(proc_fd, path, TEXT_MAX, text, NULL);
	return r == -ENOENT ? -ESRCH : r;
}

static uint64_t ticks_to_ns(uint64_t ticks)
{
	return ticks * (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK));
}

int procstat_read(int proc_fd, pid_t tid, struct proc_stat *stat)
{
	_cleanup_free_ char *text = NULL;
	uint64_t utime, stime, started;
	const char *name, *end;
	int r;

	r = read_text(proc_fd, tid, "stat", &text);
	if (r)
		return r;
	/* The name is the process's to choose, parentheses and all. */
	name = strchr(text, '(');
	end = strrchr(text, ')');
	if (!name || !end || end < name)
		return -EPROTO;
	*stat = (struct proc_stat){};
	snprintf(stat->name, sizeof(stat->name), "%.*s", (int)(end - name - 1),
		 name + 1);
	if (sscanf(end + 1,
		   " %c %d %d %d %*d %*d %" SCNu64 " %*u %*u %*u %*u %" SCNu64
		   " %" SCNu64 " %*d %*d %*d %d %*d %*d %" SCNu64,
		   &stat->state, &stat->ppid, &stat->pgrp, &stat->sid,
		   &stat->flags, &utime, &stime, &stat->nice, &started) != 9)
		return -EPROTO;
	stat->utime_ns = ticks_to_ns(utime);
	stat->stime_ns = ticks_to_ns(stime);
	stat->started_ns = ticks_to_ns(started);
	return 0;
}

uint64_t procstat_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return ROUND_DOWN((uint64_t)now.tv_sec * 1000000000 +
				  (uint64_t)now.tv_nsec,
			  ticks_to_ns(1));
}

bool procstat_is_alive(pid_t pid)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	struct proc_stat stat;

	return proc_fd >= 0 && !procstat_read(proc_fd, 0, &stat) &&
	       stat.state != 'Z' && stat.state != 'X';
}

/* The value of a line; the newline keeps a process from naming itself so. */
static const char *find_line(const char *text, const char *field)
{
	const char *at = strstr(text, field);

	return at ? at + strlen(field) : NULL;
}

int procstat_read_n_writes(int proc_fd, uint64_t *n)
{
	_cleanup_free_ char *text = NULL;
	const char *at;
	int r = read_text(proc_fd, 0, "io", &text);

	if (r)
		return r;
	at = find_line(text, "\nsyscw:");
	if (!at)
		return -EPROTO;
	*n = strtoull(at, NULL, 10);
	return 0;
}

int procstat_read_ns_tid(int proc_fd, pid_t tid, pid_t *ns_tid)
{
	_cleanup_free_ char *text = NULL;
	const char *at;
	char *end;
	int r = read_text(proc_fd, tid, "status", &text);

	if (r)
		return r;
	*ns_tid = tid;
	at = find_line(text, "\nNSpid:");
	while (at) {
		long number = strtol(at + strspn(at, "\t "), &end, 10);

		if (at[strspn(at, "\t ")] == '\n' || end == at)
			break;
		*ns_tid = (pid_t)number;
		at = end;
	}
	return 0;
}

static int read_four(const char *text, const char *field, uid_t ids[4])
{
	const char *at = find_line(text, field);

	if (!at ||
	    sscanf(at, "%u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]) != 4)
		return -EPROTO;
	return 0;
}

static int read_mask(const char *text, const char *field, uint64_t *mask)
{
	const char *at = find_line(text, field);

	if (!at)
		return -EPROTO;
	*mask = strtoull(at, NULL, 16);
	return 0;
}

static int read_groups(const char *text, struct proc_creds *creds)
{
	const char *at = find_line(text, "\nGroups:");
	size_t n = 0, size = 0;

	creds->groups = NULL;
	while (at) {
		char *end;
		gid_t gid, *groups;

		at += strspn(at, " \t");
		gid = (gid_t)strtoul(at, &end, 10);
		if (end == at)
			break;
		at = end;
		if (n == size) {
			size = size ? size * 2 : 16;
			groups = reallocarray(creds->groups, size,
					      sizeof(*groups));
			if (!groups) {
				free_ptr(&creds->groups);
				return -ENOMEM;
			}
			creds->groups = groups;
		}
		creds->groups[n++] = gid;
	}
	creds->n_groups = n;
	return 0;
}

int procstat_read_creds(int proc_fd, struct proc_creds *creds)
{
	_cleanup_free_ char *text = NULL;
	int r;

	*creds = (struct proc_creds){};
	r = read_text(proc_fd, 0, "status", &text);
	if (!r)
		r = read_four(text, "\nUid:", creds->uids);
	if (!r)
		r = read_four(text, "\nGid:", creds->gids);
	if (!r)
		r = read_mask(text, "\nCapPrm:", &creds->cap_permitted);
	if (!r)
		r = read_mask(text, "\nCapEff:", &creds->cap_effective);
	return r ? r : read_groups(text, creds);
}
