/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/procfds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"

/* The first number behind `field`, at the start of a line. */
static int read_number(int proc_fd, const char *file, const char *field,
		       uint64_t *number)
{
	_cleanup_free_ char *text = NULL;
	const char *at;
	char *end;
	int r = io_read_file(proc_fd, file, MIB, &text, NULL);

	if (r)
		return r == -ENOENT ? -ESRCH : r;
	at = strstr(text, field);
	if (!at)
		return -EPROTO;
	at += strlen(field);
	at += strspn(at, " \t");
	if (!strncmp(at, "unlimited", strlen("unlimited"))) {
		*number = UINT64_MAX;
		return 0;
	}
	*number = strtoull(at, &end, 10);
	return end == at ? -EPROTO : 0;
}

/* One may be open above a limit that was lowered since. */
static int count_below(int proc_fd, uint64_t limit, uint64_t *n)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_close_ int fd =
		openat(proc_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;

	*n = 0;
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	steal_fd(&fd);
	while ((errno = 0, entry = readdir(dir)))
		if (*entry->d_name != '.' &&
		    strtoull(entry->d_name, NULL, 10) < limit)
			++*n;
	return -errno;
}

int procfds_count_free(int proc_fd, uint64_t enough, uint64_t *n_free)
{
	uint64_t limit, size, used;
	/* Not prlimit(2), which takes CAP_SYS_RESOURCE. */
	int r = read_number(proc_fd, "limits", "\nMax open files", &limit);

	/* Slots of its table: no more can be in use. */
	if (!r)
		r = read_number(proc_fd, "status", "\nFDSize:", &size);
	if (r)
		return r;
	*n_free = enough;
	if (limit >= size && limit - size >= enough)
		return 0;
	r = count_below(proc_fd, limit, &used);
	*n_free = limit > used ? limit - used : 0;
	return r;
}
