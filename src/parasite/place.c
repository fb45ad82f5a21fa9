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

static int place_below(const struct candidate *candidate, uint64_t rsp,
		       size_t len, uint64_t *remote_addr)
{
	uint64_t top = ROUND_DOWN(rsp - ARCH_RED_ZONE, WAYBACK_ALIGN);

	if (top < candidate->stack.start || top - candidate->stack.start < len)
		return 0;
	*remote_addr = top - len;
	return 1;
}

/* Does it share its memory with who started it? That one's main thread would
 * be the owner of [stack]. What we may not compare, we may not trace, and who
 * lets us trace the one shares no memory with the other. */
static bool is_stack_shared(const struct candidate *candidate)
{
	pid_t parent = candidate->status.ppid;

	return parent && kcmp_same_memory(candidate->tid, parent) > 0;
}

/* The length of another way back that is left at `at`, if it is nobody's. */
static size_t find_leavings(const struct candidate *candidate, int proc_fd,
			    const uint8_t *at)
{
	struct wayback_mark mark;
	pid_t tid;

	memcpy(&mark, at, sizeof(mark));
	if (!wayback_is_mark(&mark))
		return 0;
	tid = (pid_t)mark.tid;
	if (tid != candidate->tid && candidate_has_thread(proc_fd, tid))
		return 0;
	return mark.len;
}

static int place_lowest(const struct candidate *candidate, int proc_fd,
			size_t len, uint64_t *remote_addr)
{
	size_t room = WAYBACK_LEN_MAX + PLACE_SLACK, left;
	_cleanup_free_ uint8_t *buf = NULL;
	struct range stack = candidate->stack;
	int err;

	if (len > WAYBACK_LEN_MAX)
		return -EOVERFLOW;
	if (stack.end - stack.start < room || is_stack_shared(candidate))
		return 0;
	buf = malloc(room);
	if (!buf)
		return -ENOMEM;
	err = vm_read(candidate->tid, stack.start, buf, room);
	if (err)
		return err == -EFAULT ? 0 : err;
	left = find_leavings(candidate, proc_fd, buf);
	if (!is_zero(buf + left, room - left))
		return 0;
	if (left) {
		memset(buf, 0, left);
		err = vm_write(candidate->tid, stack.start, buf, left);
		if (err)
			return err;
	}
	*remote_addr = stack.start;
	return 1;
}

static bool is_on_stack(const struct candidate *candidate, uint64_t rsp)
{
	return rsp > candidate->stack.start && rsp <= candidate->stack.end;
}

int place_find(struct candidate *candidate, int proc_fd,
	       const struct user_regs_struct *regs, size_t len,
	       uint64_t *remote_addr)
{
	bool is_main = candidate->tid == candidate->pid;
	int r;

	if (is_main && is_on_stack(candidate, regs->rsp) &&
	    place_below(candidate, regs->rsp, len, remote_addr))
		return 1;
	/* It may have grown since. */
	r = candidate_read_stack(candidate, proc_fd, &candidate->stack);
	if (r)
		return r;
	if (!is_on_stack(candidate, regs->rsp))
		return place_lowest(candidate, proc_fd, len, remote_addr);
	/* Another thread can be there only on its way home. */
	return is_main ? place_below(candidate, regs->rsp, len, remote_addr)
		       : 0;
}

pid_t place_read_owner(pid_t tid, struct range stack)
{
	struct wayback_mark mark;

	if (vm_read(tid, stack.start, &mark, sizeof(mark)) ||
	    !wayback_is_mark(&mark))
		return 0;
	return (pid_t)mark.tid;
}
