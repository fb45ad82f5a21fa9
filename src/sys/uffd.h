/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * userfaultfd(2), write-protect mode. A descriptor acts on the memory of the
 * process that created it, whoever holds it now: all addresses are the
 * target's. Thin wrappers: 0 or -errno, no logging, any thread.
 *
 * What is newer than the oldest headers that we build with is defined here,
 * from include/uapi/linux/userfaultfd.h.
 */

#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/util.h"

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12) /* 5.19 */
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13) /* 6.4 */
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* 6.1 */
#endif

/*
 * Asks for `features`; a kernel that lacks one of them fails with -EINVAL and
 * the descriptor may be asked again.
 */
int uffd_init(int uffd, uint64_t features);

/*
 * /dev/userfaultfd, by which who may not call userfaultfd(2) makes one (since
 * 6.1). Read-only is enough. A descriptor or -errno.
 */
int uffd_open_device(void);

/*
 * A descriptor that acts on our own memory, not initialised. `flags` may be
 * UFFD_USER_MODE_ONLY, which asks for no right. -EPERM where even that is not
 * allowed, -ENOSYS where there is no userfaultfd.
 */
int uffd_open_own(int flags);

/* What this kernel knows, asked of such a descriptor. */
int uffd_query_features(uint64_t *features);

/*
 * Whether we may ask for UFFD_FEATURE_EVENT_FORK, of whatever memory: -EPERM
 * without CAP_SYS_PTRACE. -errno as above.
 */
int uffd_may_follow_forks(void);

/*
 * Registers a page-aligned range for write protection. -EBUSY when another
 * userfaultfd has it, -EINVAL when the memory's kind can't be protected,
 * -EPERM for a private mapping of a file that may not be written.
 */
int uffd_register_wp(int uffd, struct range range);
int uffd_unregister(int uffd, struct range range);

/*
 * Write-protects a range / lets writers through and wakes who waits in it.
 * -ENOENT: the range is not, or not any more, registered.
 *
 * While the address space is changing, until somebody has read the event of
 * that, the kernel refuses: these two wait for it. Never call them from the
 * thread that reads the events.
 */
int uffd_protect(int uffd, struct range range);
int uffd_unprotect(int uffd, struct range range);

/* For that thread: these do not wait, but return -EAGAIN. */
int uffd_try_protect(int uffd, struct range range);
int uffd_try_unprotect(int uffd, struct range range);

/*
 * Calls one of these for all that is registered of a range. Before Linux 6.4
 * they take no more than lies in one mapping; and later kernels stop at the
 * first that is not registered. So of what is refused each half is tried, down
 * to a page of `page_size`. -ENOENT: some is not registered, all else is done.
 * Any other error ends it.
 */
typedef int (*uffd_range_fn)(int uffd, struct range range);
int uffd_for_registered(int uffd, struct range range, uint64_t page_size,
			uffd_range_fn fn);

/*
 * Wakes who waits in a range, and nothing else; they fault again if need be.
 * Also where nothing is mapped any more.
 */
int uffd_wake(int uffd, struct range range);

/*
 * Whether the address space has changed in a way that is an event, and one of
 * these is yet to be read. What was changed before the page tables were last
 * walked is seen, for both take the lock of the mappings.
 */
bool uffd_is_changing(int uffd);

/* How long to wait before another try. Yielding the processor is not enough:
 * who has to run may be of a lower priority. */
void uffd_wait_for_change(void);

/*
 * Reads at most `max` events without blocking; returns how many, 0 for none,
 * or -errno.
 */
int uffd_read(int uffd, struct uffd_msg *msgs, size_t max);

/*
 * What the kernel tells of a descriptor of ours in /proc: to be closed before
 * it. -errno without /proc.
 */
int uffd_open_info(int uffd);

/* How many faults are to be read; all of them come before any event. -EBADMSG
 * when it is not said. About 0.5 µs. */
int uffd_count_pending(int info_fd);

/* Whether there is anything to read. */
bool uffd_is_readable(int uffd);
