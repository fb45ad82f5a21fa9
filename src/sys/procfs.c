/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/procfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <linux/openat2.h>

#include "base/cleanup.h"
#include "base/io.h"

/* A process may have 65530 mappings (vm.max_map_count) of up to 4 KiB a line,
 * or more where the administrator raised it. */
#define PROC_TEXT_MAX (256 * MIB)

int procfs_open(pid_t pid)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d", pid);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	return fd;
}

bool procfs_runs_program_of(int proc_fd, pid_t pid)
{
	_cleanup_close_ int other_fd = procfs_open(pid);
	struct stat one, other;

	return other_fd >= 0 && !fstatat(proc_fd, "exe", &one, 0) &&
	       !fstatat(other_fd, "exe", &other, 0) &&
	       one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/* The value of "Field:\t…" in a status-like text, or NULL. */
static const char *find_field(const char *text, const char *field)
{
	size_t len = strlen(field);
	const char *line;

	for (line = text; line && *line;
	     line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
		if (strncmp(line, field, len) || line[len] != ':')
			continue;
		line += len + 1;
		return line + strspn(line, " \t");
	}
	return NULL;
}

static long field_long(const char *text, const char *field, long missing)
{
	const char *value = find_field(text, field);

	return value ? strtol(value, NULL, 10) : missing;
}

static int read_status(int proc_fd, const char *path,
		       struct proc_status *status)
{
	_cleanup_free_ char *text = NULL;
	const char *value;
	int r;

	r = io_read_file(proc_fd, path, MIB, &text, NULL);
	if (r == -ENOENT)
		return -ESRCH;
	if (r)
		return r;

	*status = (struct proc_status){
		.tgid = (pid_t)field_long(text, "Tgid", 0),
		.ppid = (pid_t)field_long(text, "PPid", 0),
		.tracer_pid = (pid_t)field_long(text, "TracerPid", 0),
		.seccomp = (int)field_long(text, "Seccomp", 0),
		.no_new_privs = field_long(text, "NoNewPrivs", 0),
		.n_threads = (unsigned)field_long(text, "Threads", 1),
	};

	value = find_field(text, "Name");
	if (value)
		snprintf(status->name, sizeof(status->name), "%.*s",
			 (int)strcspn(value, "\n"), value);
	value = find_field(text, "State");
	status->state = value ? *value : '?';
	value = find_field(text, "Uid");
	if (!value || sscanf(value, "%*u %u", &status->euid) != 1)
		return -EPROTO;
	value = find_field(text, "Gid");
	if (!value || sscanf(value, "%*u %u", &status->egid) != 1)
		return -EPROTO;
	/* Without an mm there is no VmSize; a zombie has lost its own. */
	status->kernel_thread = !find_field(text, "VmSize") &&
				status->state != 'Z' && status->state != 'X';
	return 0;
}

int procfs_read_status(int proc_fd, struct proc_status *status)
{
	return read_status(proc_fd, "status", status);
}

int procfs_read_thread_status(int proc_fd, pid_t tid,
			      struct proc_status *status)
{
	char path[48];

	snprintf(path, sizeof(path), "task/%d/status", tid);
	return read_status(proc_fd, path, status);
}

void procfs_read_name(pid_t pid, char *name, size_t size)
{
	_cleanup_close_ int proc_fd = procfs_open(pid);
	struct proc_status status;

	if (proc_fd < 0 || procfs_read_status(proc_fd, &status))
		snprintf(status.name, sizeof(status.name), "?");
	snprintf(name, size, "%s", status.name);
}

static int parse_map(char *line, struct proc_map *map)
{
	unsigned major_nr, minor_nr;
	char perms[5];
	int path_at = 0;
	char *path;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %lu %n",
		   &map->range.start, &map->range.end, perms, &map->offset,
		   &major_nr, &minor_nr, &map->inode, &path_at) < 7 ||
	    !path_at || map->range.end <= map->range.start ||
	    strlen(perms) != 4)
		return -EPROTO;

	path = strdup(line + path_at);
	if (!path)
		return -ENOMEM;
	map->path = path;
	map->dev = makedev(major_nr, minor_nr);
	map->read = perms[0] == 'r';
	map->write = perms[1] == 'w';
	map->exec = perms[2] == 'x';
	map->shared = perms[3] == 's';
	return 0;
}

/* Also while the process changes them (Documentation/filesystems/proc.rst). */
static bool is_ascending(const struct proc_maps *maps)
{
	const struct proc_map *last = &maps->maps[maps->n_maps - 1];

	return maps->n_maps == 1 || last[-1].range.end <= last->range.start;
}

int procfs_read_maps(int proc_fd, struct proc_maps *maps)
{
	_cleanup_free_ char *text = NULL;
	size_t n_lines = 0;
	char *line, *next;
	int r;

	*maps = (struct proc_maps){};

	r = io_read_file(proc_fd, "maps", PROC_TEXT_MAX, &text, NULL);
	if (r)
		return r == -ENOENT ? -ESRCH : r;

	for (line = text; (line = strchr(line, '\n')); line++)
		n_lines++;
	maps->maps = calloc(n_lines + 1, sizeof(*maps->maps));
	if (!maps->maps)
		return -ENOMEM;

	for (line = text; *line; line = next) {
		next = strchr(line, '\n');
		if (!next)
			break;
		*next++ = '\0';
		r = parse_map(line, &maps->maps[maps->n_maps]);
		if (!r)
			maps->n_maps++;
		if (!r && !is_ascending(maps))
			r = -EPROTO;
		if (r) {
			proc_maps_deinit(maps);
			return r;
		}
	}
	return 0;
}

void proc_maps_deinit(struct proc_maps *maps)
{
	for (size_t i = 0; i < maps->n_maps; i++)
		free(maps->maps[i].path);
	free(maps->maps);
	*maps = (struct proc_maps){};
}

const struct proc_map *proc_maps_find(const struct proc_maps *maps,
				      uint64_t addr)
{
	size_t low = 0, high = maps->n_maps;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		const struct proc_map *map = &maps->maps[mid];

		if (addr < map->range.start)
			high = mid;
		else if (addr >= map->range.end)
			low = mid + 1;
		else
			return map;
	}
	return NULL;
}

int procfs_read_threads(int proc_fd, pid_t **tids, size_t *n_tids)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_close_ int fd = -1;
	_cleanup_free_ pid_t *list = NULL;
	size_t n = 0, size = 0;
	struct dirent *entry;

	fd = openat(proc_fd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	steal_fd(&fd);

	while ((errno = 0, entry = readdir(dir))) {
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
			continue;
		if (n == size) {
			pid_t *p;

			size = size ? size * 2 : 32;
			p = reallocarray(list, size, sizeof(*list));
			if (!p)
				return -ENOMEM;
			list = p;
		}
		list[n++] = atoi(entry->d_name);
	}
	if (errno)
		return -errno;
	if (!n)
		return -ESRCH;

	*tids = steal_ptr(list);
	*n_tids = n;
	return 0;
}

int procfs_read_syscall(int proc_fd, pid_t tid, struct proc_syscall *call)
{
	_cleanup_close_ int fd = -1;
	char path[48], text[256], *end;
	ssize_t n;

	snprintf(path, sizeof(path), "task/%d/syscall", tid);
	fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = 0;
	*call = (struct proc_syscall){ .nr = strtol(text, &end, 10) };
	if (end == text)
		return -EAGAIN; /* "running" */
	/* "-1 SP PC" outside of any. */
	for (int i = 0; i < 6 && call->nr >= 0; i++)
		call->args[i] = strtoull(end, &end, 16);
	return 0;
}

int procfs_read_argv(int proc_fd, char ***argv, size_t *n_args)
{
	_cleanup_free_ char *text = NULL;
	size_t len, n = 0;
	char **args, *copy;
	int r;

	r = io_read_file(proc_fd, "cmdline", 8 * MIB, &text, &len);
	if (r)
		return r == -ENOENT ? -ESRCH : r;

	for (size_t i = 0; i < len; i++)
		n += !text[i];
	n += len && text[len - 1];

	args = malloc((n + 1) * sizeof(*args) + len + 1);
	if (!args)
		return -ENOMEM;
	copy = (char *)(args + n + 1);
	memcpy(copy, text, len + 1);
	for (size_t i = 0; i < n; i++) {
		args[i] = copy;
		copy += strlen(copy) + 1;
	}
	args[n] = NULL;

	*argv = args;
	if (n_args)
		*n_args = n;
	return 0;
}

int procfs_read_link(int proc_fd, const char *name, char **target)
{
	char buf[PATH_MAX];
	ssize_t n = readlinkat(proc_fd, name, buf, sizeof(buf) - 1);

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	*target = strdup(buf);
	return *target ? 0 : -ENOMEM;
}

int procfs_open_path(int proc_fd, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.resolve = RESOLVE_IN_ROOT,
	};
	_cleanup_close_ int dir = -1;
	int fd;

	dir = openat(proc_fd, *path == '/' ? "root" : "cwd",
		     O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	/* Absolute symbolic links are the target's as well. */
	if (*path == '/')
		fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
	else
		fd = openat(dir, path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int procfs_read_meminfo(const char *field, uint64_t *bytes)
{
	_cleanup_free_ char *text = NULL;
	const char *value;
	int r;

	r = io_read_file(AT_FDCWD, "/proc/meminfo", MIB, &text, NULL);
	if (r)
		return r;
	value = find_field(text, field);
	if (!value)
		return -ENOENT;
	*bytes = strtoull(value, NULL, 10) * KIB;
	return 0;
}
