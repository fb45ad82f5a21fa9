/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/landlock.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"

/* include/uapi/linux/landlock.h, up to ABI 6, which the headers that this is
 * built with may not have. */
#define CREATE_RULESET_VERSION 1u
#define RULE_PATH_BENEATH      1

#define FS_WRITE_FILE ((uint64_t)1 << 1)
#define FS_READ_FILE  ((uint64_t)1 << 2)
#define FS_READ_DIR   ((uint64_t)1 << 3)
#define FS_MAKE_REG   ((uint64_t)1 << 8)
#define FS_TRUNCATE   ((uint64_t)1 << 14)

#define NET_ALL	  ((uint64_t)3) /* bind and connect of TCP */
#define SCOPE_ALL ((uint64_t)3) /* abstract unix sockets, signals */

struct ruleset {
	uint64_t handled_fs;
	uint64_t handled_net; /* from ABI 4 on */
	uint64_t scoped;      /* from ABI 6 on */
};

struct path_beneath {
	uint64_t allowed;
	int32_t parent_fd;
} __attribute__((packed));

/* The rights that each ABI added: 13 in the first, then rename to another
 * directory, truncate, and (5) ioctl of devices. */
static uint64_t known_rights(int abi)
{
	unsigned n = abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13;

	return ((uint64_t)1 << n) - 1;
}

static int make_ruleset(int abi)
{
	const struct ruleset rules = {
		.handled_fs = known_rights(abi),
		.handled_net = NET_ALL,
		.scoped = SCOPE_ALL,
	};
	size_t len = abi >= 6	? sizeof(rules)
		     : abi >= 4 ? offsetof(struct ruleset, scoped)
				: offsetof(struct ruleset, handled_net);
	long fd = syscall(SYS_landlock_create_ruleset, &rules, len, 0);

	return fd < 0 ? -errno : (int)fd;
}

static int allow(int ruleset, int dir_fd, uint64_t rights)
{
	const struct path_beneath rule = { rights, dir_fd };

	if (dir_fd < 0)
		return 0;
	return syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule,
		       0)
		       ? -errno
		       : 0;
}

int landlock_restrict(int read_fd, int write_fd)
{
	_cleanup_close_ int ruleset = -1;
	int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0,
			       CREATE_RULESET_VERSION);
	int r;

	if (abi < 0)
		return -errno;
	ruleset = make_ruleset(abi);
	if (ruleset < 0)
		return ruleset;
	r = allow(ruleset, read_fd, FS_READ_FILE | FS_READ_DIR);
	if (!r)
		r = allow(ruleset, write_fd,
			  (FS_WRITE_FILE | FS_MAKE_REG | FS_TRUNCATE) &
				  known_rights(abi));
	if (!r && syscall(SYS_landlock_restrict_self, ruleset, 0))
		r = -errno;
	return r;
}
