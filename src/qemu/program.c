/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/program.h"

#include <string.h>

#include "base/cleanup.h"
#include "sys/procfs.h"

bool program_is_qemu(int proc_fd)
{
	static const char *const prefixes[] = { "qemu-system-", "qemu-kvm",
						"kvm" };
	_cleanup_free_ char *path = NULL;
	const char *name;

	if (procfs_read_link(proc_fd, "exe", &path))
		return false;
	name = strrchr(path, '/');
	name = name ? name + 1 : path;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return true;
	return false;
}
