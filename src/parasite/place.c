/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "parasite/place.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "parasite/wayback.h"
#include "sys/kcmp.h"
#include "sys/vmio.h"

static bool is_zero(const uint8_t *at, size_t len)
{
	return !len || (!*at && !memcmp(at, at + 1, len - 1));
}

static int place_below(const struct subject *subject, uint64_t rsp, size_t len,
		       uint64_t *remote_addr)
{
	uint64_t top = ROUND_DOWN(rsp - ARCH_RED_ZONE, WAYBACK_ALIGN);

	if (top < subject->stack.start || top - subject->stack.start < len)
		return 0;
	*remote_addr = top - len;
	return 1;
}

/* Does it share its memory with who started it? That one's main thread would
 * be the owner of [stack]. What we may not compare, we may not trace, and who
 * lets us trace the one shares no memory with the other. */
static bool is_stack_shared(const struct subject *subject)
{
	pid_t parent = subject->status.ppid;

	return parent && kcmp_same_memory(subject->tid, parent) > 0;
}

/* The length of another way back that is left at `at`, if it is nobody's. */
static size_t find_leavings(const struct subject *subject, int proc_fd,
			    const uint8_t *at)
{
	struct wayback_mark mark;
	pid_t tid;

	memcpy(&mark, at, sizeof(mark));
	if (!wayback_is_mark(&mark))
		return 0;
	tid = (pid_t)mark.tid;
	if (tid != subject->tid && subject_has_thread(proc_fd, tid))
		return 0;
	return mark.len;
}

static int place_lowest(const struct subject *subject, int proc_fd, size_t len,
			uint64_t *remote_addr)
{
	size_t room = WAYBACK_LEN_MAX + PLACE_SLACK, left;
	_cleanup_free_ uint8_t *buf = NULL;
	struct range stack = subject->stack;
	int err;

	if (len > WAYBACK_LEN_MAX)
		return -EOVERFLOW;
	if (stack.end - stack.start < room || is_stack_shared(subject))
		return 0;
	buf = malloc(room);
	if (!buf)
		return -ENOMEM;
	err = vm_read(subject->tid, stack.start, buf, room);
	if (err)
		return err == -EFAULT ? 0 : err;
	left = find_leavings(subject, proc_fd, buf);
	if (!is_zero(buf + left, room - left))
		return 0;
	if (left) {
		memset(buf, 0, left);
		err = vm_write(subject->tid, stack.start, buf, left);
		if (err)
			return err;
	}
	*remote_addr = stack.start;
	return 1;
}

static bool is_on_stack(const struct subject *subject, uint64_t rsp)
{
	return rsp > subject->stack.start && rsp <= subject->stack.end;
}

int place_find(struct subject *subject, int proc_fd,
	       const struct user_regs_struct *regs, size_t len,
	       uint64_t *remote_addr)
{
	bool is_main = subject->tid == subject->pid;
	int r;

	if (is_main && is_on_stack(subject, regs->rsp) &&
	    place_below(subject, regs->rsp, len, remote_addr))
		return 1;
	/* It may have grown since. */
	r = subject_read_stack(subject, proc_fd, &subject->stack);
	if (r)
		return r;
	if (!is_on_stack(subject, regs->rsp))
		return place_lowest(subject, proc_fd, len, remote_addr);
	/* Another thread can be there only on its way home. */
	return is_main ? place_below(subject, regs->rsp, len, remote_addr) : 0;
}

pid_t place_read_owner(pid_t tid, struct range stack)
{
	struct wayback_mark mark;

	if (vm_read(tid, stack.start, &mark, sizeof(mark)) ||
	    !wayback_is_mark(&mark))
		return 0;
	return (pid_t)mark.tid;
}
