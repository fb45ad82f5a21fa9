/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/smaps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"

static unsigned parse_flags(const char *text)
{
	static const struct {
		char name[3];
		unsigned flag;
	} names[] = {
		{ "dd", SMAP_DONTDUMP }, { "io", SMAP_DEVICE },
		{ "pf", SMAP_DEVICE },	 { "mw", SMAP_MAYWRITE },
		{ "um", SMAP_UFFD },	 { "uw", SMAP_UFFD },
		{ "ui", SMAP_UFFD },
	};
	unsigned flags = 0;

	for (; *text; text += strspn(text, " \n")) {
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			if (!strncmp(text, names[i].name, 2))
				flags |= names[i].flag;
		text += strcspn(text, " \n");
	}
	return flags;
}

/* The first line of an entry is one of maps; no other begins so. */
static bool parse_range(const char *line, struct range *range)
{
	return sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &range->start,
		      &range->end) == 2 &&
	       range->start < range->end;
}

static int append(struct smap **smaps, size_t *n, size_t *size,
		  struct range range)
{
	if (*n == *size) {
		size_t more = *size ? *size * 2 : 256;
		struct smap *list = reallocarray(*smaps, more, sizeof(*list));

		if (!list)
			return -ENOMEM;
		*smaps = list;
		*size = more;
	}
	(*smaps)[(*n)++] =
		(struct smap){ .range = range, .page_size = PAGE_SIZE };
	return 0;
}

static FILE *open_smaps(int proc_fd)
{
	_cleanup_close_ int fd = openat(proc_fd, "smaps", O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (file)
		steal_fd(&fd);
	return file;
}

int smaps_read(int proc_fd, struct smap **smaps, size_t *n)
{
	_cleanup_fclose_ FILE *file = open_smaps(proc_fd);
	_cleanup_free_ struct smap *list = NULL;
	_cleanup_free_ char *line = NULL;
	size_t n_list = 0, size = 0, len = 0;
	struct range range;
	uint64_t kib;

	if (!file)
		return errno == ENOENT ? -ESRCH : -errno;
	while (errno = 0, getline(&line, &len, file) >= 0) {
		if (parse_range(line, &range)) {
			int r = append(&list, &n_list, &size, range);

			if (r)
				return r;
			continue;
		}
		if (!n_list)
			return -EPROTO;
		if (!strncmp(line, "VmFlags: ", 9))
			list[n_list - 1].flags = parse_flags(line + 9);
		else if (sscanf(line, "KernelPageSize: %" SCNu64, &kib) == 1)
			list[n_list - 1].page_size = kib * KIB;
		else if (sscanf(line, "Rss: %" SCNu64, &kib) == 1)
			list[n_list - 1].resident = kib * KIB;
		else if (sscanf(line, "Anonymous: %" SCNu64, &kib) == 1)
			list[n_list - 1].anonymous = kib * KIB;
	}
	if (errno)
		return -errno;
	*smaps = steal_ptr(list);
	*n = n_list;
	return n_list ? 0 : -ESRCH;
}

const struct smap *smaps_find(const struct smap *smaps, size_t n, uint64_t addr)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (addr < smaps[mid].range.start)
			high = mid;
		else if (addr >= smaps[mid].range.end)
			low = mid + 1;
		else
			return &smaps[mid];
	}
	return NULL;
}
