/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/memlimit.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"

/* One way in which memory cgroups are had. */
struct hierarchy {
	const char *line; /* of /proc/self/cgroup, up to the path */
	const char *mount;
	const char *limits[2];
	const char *usage;
	const char *cache; /* line of memory.stat, with those below it */
};

static const struct hierarchy hierarchies[] = {
	{ "0::",
	  "/sys/fs/cgroup",
	  { "memory.max", "memory.high" },
	  "memory.current",
	  "inactive_file " },
	{ ":memory:",
	  "/sys/fs/cgroup/memory",
	  { "memory.limit_in_bytes", NULL },
	  "memory.usage_in_bytes",
	  "total_inactive_file " },
};

/* A file that has one number; "max" is no limit. */
static int read_number(int dir_fd, const char *name, uint64_t *value)
{
	_cleanup_free_ char *text = NULL;
	int r = io_read_file(dir_fd, name, KIB, &text, NULL);

	if (r)
		return r;
	*value =
		strncmp(text, "max", 3) ? strtoull(text, NULL, 10) : UINT64_MAX;
	return 0;
}

static uint64_t read_cache(int dir_fd, const char *line)
{
	_cleanup_free_ char *text = NULL;
	const char *at;

	if (io_read_file(dir_fd, "memory.stat", MIB, &text, NULL))
		return 0;
	for (at = text; (at = strstr(at, line)); at++)
		if (at == text || at[-1] == '\n')
			return strtoull(at + strlen(line), NULL, 10);
	return 0;
}

/* What one cgroup leaves. */
static uint64_t headroom(const struct hierarchy *h, int dir_fd)
{
	uint64_t limit = UINT64_MAX, usage, value;

	for (size_t i = 0; i < ARRAY_SIZE(h->limits); i++)
		if (h->limits[i] && !read_number(dir_fd, h->limits[i], &value))
			limit = min_u64(limit, value);
	if (limit == UINT64_MAX || read_number(dir_fd, h->usage, &usage))
		return UINT64_MAX;
	usage -= min_u64(usage, read_cache(dir_fd, h->cache));
	return limit - min_u64(limit, usage);
}

/* "N:memory:/path" or "0::/path": the path, to free; NULL: there is none. */
static char *find_path(const struct hierarchy *h, const char *text)
{
	const char *at = strstr(text, h->line), *end;

	if (!at)
		return NULL;
	at += strlen(h->line);
	end = strchrnul(at, '\n');
	return strndup(at, (size_t)(end - at));
}

/* From the cgroup up to the root. */
static uint64_t walk(const struct hierarchy *h, char *path)
{
	uint64_t least = UINT64_MAX;

	for (;;) {
		_cleanup_close_ int dir_fd = -1;
		char name[PATH_MAX], *slash;

		if (snprintf(name, sizeof(name), "%s%s", h->mount, path) >=
		    (int)sizeof(name))
			return least;
		dir_fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir_fd >= 0)
			least = min_u64(least, headroom(h, dir_fd));
		slash = strrchr(path, '/');
		if (!slash)
			return least;
		*slash = '\0';
	}
}

uint64_t memlimit_headroom(void)
{
	_cleanup_free_ char *text = NULL;
	uint64_t least = UINT64_MAX;

	if (io_read_file(AT_FDCWD, "/proc/self/cgroup", MIB, &text, NULL))
		return least;
	for (size_t i = 0; i < ARRAY_SIZE(hierarchies); i++) {
		_cleanup_free_ char *path = find_path(&hierarchies[i], text);

		if (path)
			least = min_u64(least, walk(&hierarchies[i], path));
	}
	return least;
}
