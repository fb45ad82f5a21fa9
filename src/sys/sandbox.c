/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "sys/landlock.h"

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
	__has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

bool sandbox_is_whole(void)
{
	return !SANITIZED;
}

/* Of the process itself, of descriptors that are open, and of names that
 * Landlock looks at. */
static const int plain_calls[] = {
	/* memory; sysinfo: qsort(3) asks how much there is */
	SCMP_SYS(brk),
	SCMP_SYS(madvise),
	SCMP_SYS(mremap),
	SCMP_SYS(munmap),
	SCMP_SYS(sysinfo),
	/* files */
	SCMP_SYS(access),
	SCMP_SYS(close),
	SCMP_SYS(dup),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(fadvise64),
	SCMP_SYS(fcntl),
	SCMP_SYS(fdatasync),
	SCMP_SYS(fstat),
	SCMP_SYS(fstatfs),
	SCMP_SYS(fsync),
	SCMP_SYS(ftruncate),
	SCMP_SYS(getdents64),
	SCMP_SYS(lseek),
	SCMP_SYS(newfstatat),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(pread64),
	SCMP_SYS(preadv),
	SCMP_SYS(pwrite64),
	SCMP_SYS(pwritev),
	SCMP_SYS(pwritev2),
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(statx),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	/* time, signals of its own, and the end */
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(futex),
	SCMP_SYS(getpid),
	SCMP_SYS(getrandom),
	SCMP_SYS(gettid),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(nanosleep),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sched_yield),
};

/* A call, if those bits of an argument have this value. */
struct limited_call {
	int nr;
	unsigned argument;
	uint64_t mask, value;
};

static const struct limited_call limited_calls[] = {
	/* No memory that could be run. */
	{ SCMP_SYS(mmap), 2, PROT_EXEC, 0 },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0 },
	/* Is it a terminal; blocks that two files share. */
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, TCGETS },
	{ SCMP_SYS(ioctl), 1, UINT32_MAX, FICLONERANGE },
};

/* Without Landlock these flags are all that keeps it from writing; O_TMPFILE
 * has O_DIRECTORY in it, which reading needs. */
static const struct limited_call reading = { SCMP_SYS(openat), 2,
					     O_ACCMODE | O_CREAT | O_TRUNC |
						     (O_TMPFILE & ~O_DIRECTORY),
					     O_RDONLY };

static int allow_limited(scmp_filter_ctx filter,
			 const struct limited_call *call)
{
	struct scmp_arg_cmp cmp = SCMP_CMP64(call->argument, SCMP_CMP_MASKED_EQ,
					     call->mask, call->value);

	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call->nr, 1,
				      &cmp);
}

static int fill(scmp_filter_ctx filter, bool writes)
{
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(plain_calls); i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, plain_calls[i], 0);
	for (size_t i = 0; !r && i < ARRAY_SIZE(limited_calls); i++)
		r = allow_limited(filter, &limited_calls[i]);
	if (!r && writes)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat),
				     0);
	else if (!r)
		r = allow_limited(filter, &reading);
	return r;
}

static int filter_calls(bool writes)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int r;

	if (!filter)
		return -ENOMEM;
	r = fill(filter, writes);
	if (!r)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

static int open_dir(const char *path)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int sandbox_enter(const struct sandbox *sandbox)
{
	_cleanup_close_ int read_fd = -1, write_fd = -1;
	int r;

	if (sandbox->read) {
		read_fd = open_dir(sandbox->read);
		if (read_fd < 0)
			return read_fd;
	}
	if (sandbox->write) {
		write_fd = open_dir(sandbox->write);
		if (write_fd < 0)
			return write_fd;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	if (SANITIZED)
		return 0;
	r = landlock_restrict(read_fd, write_fd);
	if (r && r != -ENOSYS && r != -EOPNOTSUPP)
		return r;
	return filter_calls(sandbox->write);
}
