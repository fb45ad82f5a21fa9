/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/procsig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/util.h"

static int find_mask(const char *text, const char *field, uint64_t *mask)
{
	const char *at = strstr(text, field);

	if (!at)
		return -EPROTO;
	*mask = strtoull(at + strlen(field), NULL, 16);
	return 0;
}

int procsig_read(int proc_fd, pid_t tid, struct procsig *sig)
{
	_cleanup_free_ char *text = NULL;
	uint64_t own, shared;
	char path[48];
	int r;

	snprintf(path, sizeof(path), "task/%d/status", tid);
	r = io_read_file(proc_fd, path, MIB, &text, NULL);
	if (r)
		return r == -ENOENT ? -ESRCH : r;
	/* The newline keeps a process from naming itself like a field: the
	 * kernel escapes those in its name. */
	r = find_mask(text, "\nSigPnd:", &own);
	if (!r)
		r = find_mask(text, "\nShdPnd:", &shared);
	if (!r)
		r = find_mask(text, "\nSigBlk:", &sig->blocked);
	if (!r)
		r = find_mask(text, "\nSigIgn:", &sig->ignored);
	if (!r)
		r = find_mask(text, "\nSigCgt:", &sig->caught);
	if (!r)
		sig->pending = own | shared;
	return r;
}
