/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "process/describe.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include "base/io.h"
#include "base/log.h"
#include "sys/procstat.h"

/* Of a text that the process owns, its environment say: more than execve(2)
 * takes, which is 6 MiB, but prctl(PR_SET_MM) puts no bound to it. */
#define TEXT_MAX    (8 * MIB)
#define STRINGS_MAX (1u << 20)
#define AUXV_MAX    (4 * KIB)

static int read_stat(struct image_process *process, const struct target *target)
{
	struct proc_stat stat;
	int r = procstat_read(target->proc_fd, 0, &stat);

	if (r)
		return r;
	process->pid = target->pid;
	process->ppid = stat.ppid;
	process->pgrp = stat.pgrp;
	process->sid = stat.sid;
	process->state = stat.state;
	process->nice = stat.nice;
	process->flags = stat.flags;
	process->name = strdup(stat.name);
	return process->name ? 0 : -ENOMEM;
}

static int read_creds(struct image_process *process,
		      const struct target *target)
{
	struct proc_creds creds;
	int r = procstat_read_creds(target->proc_fd, &creds);

	if (r)
		return r;
	memcpy(process->uids, creds.uids, sizeof(process->uids));
	memcpy(process->gids, creds.gids, sizeof(process->gids));
	process->groups = creds.groups;
	process->n_groups = creds.n_groups;
	process->cap_permitted = creds.cap_permitted;
	process->cap_effective = creds.cap_effective;
	return 0;
}

/* "a\0b\0" as strings of their own, STRINGS_MAX of them at most; how much of
 * the text is left. */
static ssize_t split(const char *text, size_t len, char ***list, size_t *n_list)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += !text[i];
	*list = calloc(min_u64(n, STRINGS_MAX) + 2, sizeof(**list));
	if (!*list)
		return -ENOMEM;
	while (len && *n_list < STRINGS_MAX) {
		size_t part = strnlen(text, len);

		(*list)[*n_list] = strndup(text, part);
		if (!(*list)[*n_list])
			return -ENOMEM;
		++*n_list;
		part = min_u64(part + 1, len);
		text += part;
		len -= part;
	}
	return (ssize_t)len;
}

/* As the kernel's own core does, which keeps 80 bytes of the arguments: what is
 * too long is cut, for it is no reason to have no core. */
static int read_strings(const struct target *target, const char *name,
			char ***list, size_t *n_list)
{
	_cleanup_free_ char *text = NULL;
	size_t len;
	ssize_t left;
	int r = io_read_head(target->proc_fd, name, TEXT_MAX, &text, &len);

	if (r)
		return r == -ENOENT ? -ESRCH : r;
	left = split(text, len, list, n_list);
	if (left < 0)
		return (int)left;
	if (left || len == TEXT_MAX)
		log_warning("pid %d: /proc/%d/%s is too long, its first %zu "
			    "bytes are kept",
			    target->pid, target->pid, name, len - (size_t)left);
	return 0;
}

/* Up to the first AT_NULL, in whole entries: all that readers take. */
static size_t sound_auxv_len(const uint8_t *auxv, size_t len)
{
	Elf64_auxv_t entry;

	for (size_t at = 0; len - at >= sizeof(entry); at += sizeof(entry)) {
		memcpy(&entry, auxv + at, sizeof(entry));
		if (entry.a_type == AT_NULL)
			return at + sizeof(entry);
	}
	return 0;
}

static int read_auxv(struct image_process *process, const struct target *target)
{
	int r = io_read_file(target->proc_fd, "auxv", AUXV_MAX,
			     (char **)&process->auxv, &process->auxv_len);

	if (!r)
		process->auxv_len =
			sound_auxv_len(process->auxv, process->auxv_len);
	return r == -ENOENT ? -ESRCH : r;
}

static int read_filter(struct image_process *process,
		       const struct target *target)
{
	_cleanup_free_ char *text = NULL;
	int r = io_read_file(target->proc_fd, "coredump_filter", KIB, &text,
			     NULL);

	if (r)
		return r == -ENOENT ? -ESRCH : r;
	process->coredump_filter = (uint32_t)strtoul(text, NULL, 16);
	return 0;
}

static void read_fdinfo(const struct target *target, struct image_fd *fd)
{
	_cleanup_free_ char *text = NULL;
	char name[32];
	const char *at;

	snprintf(name, sizeof(name), "fdinfo/%d", fd->fd);
	if (io_read_file(target->proc_fd, name, MIB, &text, NULL))
		return;
	at = strstr(text, "pos:");
	if (at)
		fd->position = strtoull(at + 4, NULL, 10);
	at = strstr(text, "flags:");
	if (at)
		fd->flags = (unsigned)strtoul(at + 6, NULL, 8);
}

/* One that was closed meanwhile is passed over. */
static int add_fd(struct image_process *process, size_t *size,
		  const struct target *target, int number)
{
	struct image_fd *fd;
	char name[32];

	if (process->n_fds == *size) {
		size_t more = *size * 2 + 64;
		struct image_fd *fds =
			reallocarray(process->fds, more, sizeof(*fds));

		if (!fds)
			return -ENOMEM;
		process->fds = fds;
		*size = more;
	}
	fd = &process->fds[process->n_fds];
	*fd = (struct image_fd){ .fd = number };
	snprintf(name, sizeof(name), "fd/%d", number);
	if (procfs_read_link(target->proc_fd, name, &fd->path))
		return 0;
	read_fdinfo(target, fd);
	process->n_fds++;
	return 0;
}

static int compare_fds(const void *a, const void *b)
{
	return ((const struct image_fd *)a)->fd -
	       ((const struct image_fd *)b)->fd;
}

static int read_fds(struct image_process *process, const struct target *target)
{
	_cleanup_close_ int fd = openat(target->proc_fd, "fd",
					O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	size_t size = 0;
	int r = 0;

	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	steal_fd(&fd);
	while (!r && (entry = readdir(dir)))
		if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
			r = add_fd(process, &size, target, atoi(entry->d_name));
	if (process->n_fds)
		qsort(process->fds, process->n_fds, sizeof(*process->fds),
		      compare_fds);
	return r;
}

int describe_process(struct image_process *process, const struct target *target)
{
	int r = read_stat(process, target);

	if (!r)
		r = read_creds(process, target);
	if (!r)
		r = read_strings(target, "cmdline", &process->argv,
				 &process->n_args);
	if (!r)
		r = read_strings(target, "environ", &process->env,
				 &process->n_env);
	if (!r)
		r = read_auxv(process, target);
	if (!r)
		r = read_filter(process, target);
	if (!r)
		r = read_fds(process, target);
	if (!r)
		procfs_read_link(target->proc_fd, "exe", &process->exe);
	if (!r)
		procfs_read_link(target->proc_fd, "cwd", &process->cwd);
	return r ? log_errno(r, "pid %d: /proc/%d: %m", target->pid,
			     target->pid)
		 : 0;
}

int describe_mappings(struct image_process *process,
		      const struct layout *layout, struct mapped_files *files)
{
	size_t n = layout->maps.n_maps;

	process->mappings = calloc(n + 1, sizeof(*process->mappings));
	if (!process->mappings)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct layout_item *item = &layout->items[i];
		const struct proc_map *map = item->map;
		struct image_mapping *to = &process->mappings[i];
		const char *build_id = NULL;

		if (map->inode)
			build_id =
				mapped_file_build_id(&files->files[item->file]);
		*to = (struct image_mapping){
			.start = map->range.start,
			.end = map->range.end,
			.prot = (map->read ? PROT_READ : 0u) |
				(map->write ? PROT_WRITE : 0u) |
				(map->exec ? PROT_EXEC : 0u),
			.shared = map->shared,
			.offset = map->offset,
			.dev_major = major(map->dev),
			.dev_minor = minor(map->dev),
			.inode = map->inode,
			.name = strdup(map->path),
			.held = item->held,
			.build_id = build_id ? strdup(build_id) : NULL,
		};
		process->n_mappings++;
		if (!to->name || (build_id && !to->build_id))
			return -ENOMEM;
	}
	return 0;
}

static void *copy_bytes(const void *from, size_t len)
{
	void *to = malloc(len);

	return to ? memcpy(to, from, len) : NULL;
}

static int describe_thread(struct image_thread *thread,
			   const struct target *target,
			   const struct tracer_thread *from)
{
	struct proc_stat stat = { .name = "?" };
	pid_t ns_tid = from->tid;

	/* It may have ended since; its name is no part of the instant. */
	procstat_read(target->proc_fd, from->tid, &stat);
	procstat_read_ns_tid(target->proc_fd, from->tid, &ns_tid);
	*thread = (struct image_thread){
		.tid = from->tid,
		.ns_tid = ns_tid == from->tid ? 0 : ns_tid,
		.name = strdup(stat.name),
		.regs = copy_bytes(&from->regs, sizeof(from->regs)),
		.regs_len = sizeof(from->regs),
		.xstate = copy_bytes(from->xstate, from->xstate_len),
		.xstate_len = from->xstate_len,
		.sigpending = from->sigpending,
		.sigblocked = from->sigblocked,
		.utime_ns = stat.utime_ns,
		.stime_ns = stat.stime_ns,
	};
	return thread->name && thread->regs && thread->xstate ? 0 : -ENOMEM;
}

int describe_threads(struct image_process *process, const struct target *target,
		     unsigned number, const struct tracer_thread *threads,
		     size_t n)
{
	int r = 0;

	process->threads = calloc(n + 1, sizeof(*process->threads));
	if (!process->threads)
		return -ENOMEM;
	/* Twice: the main thread comes first. */
	for (int others = 0; others < 2; others++)
		for (size_t i = 0; !r && i < n; i++)
			if (threads[i].stands && threads[i].process == number &&
			    (threads[i].tid != target->pid) == others)
				r = describe_thread(
					&process->threads[process->n_threads++],
					target, &threads[i]);
	if (!r && !process->n_threads) {
		log_error("pid %d: the target died", target->pid);
		return -ESRCH;
	}
	return r;
}
