/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/rlimit.h"

#include <sys/resource.h>

void rlimit_raise_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}
