/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * What must happen inside the target: a userfaultfd is bound to the address
 * space of the process that makes it, so the target's main thread is held for
 * a millisecond and made to run a few system calls. Where that thread has
 * exited and others have not, one of these serves (candidate.h).
 *
 * The parasite has no code. The calls run on instructions that the target maps
 * already, what they need lies where nothing lives (place.h: below the thread's
 * red zone, or, of a thread on a stack that is not the kernel's, in the unused
 * end of the kernel's one), and their results are fetched with pidfd_getfd(2):
 * no page of text is written and nothing is mapped, so there is nothing to take
 * back but registers, signal mask and a few KiB of dead stack. Seccomp filters
 * are suspended for the thread meanwhile.
 *
 * The target outlives its dumper at every instant: whatever registers the
 * thread is given lead home by themselves (wayback.h), so that kill -9 of the
 * tracer ends in the state in which the thread was found.
 *
 * Threading: ptrace(2) binds the tracee to the thread that seized it; all
 * calls on one parasite must come from the thread that called
 * parasite_infect(). Make it a short-lived process: where the target's thread
 * cannot be stopped (-ETIMEDOUT, a thread in uninterruptible sleep), only the
 * exit of the tracer lets go of it.
 */

#include <sys/types.h>

struct parasite;

/*
 * Holds the main thread of `pid`, or another where that has exited, and
 * prepares its way back. `proc_fd` (of /proc/PID, or of /proc/TID of one of its
 * threads) and `pidfd` are borrowed until the cure and name the same process.
 *
 * Returns 0 and a parasite to be cured; RESULT_UNSUPPORTED for a target that
 * must be left alone (traced by another, stopped by a signal, 32-bit, seccomp
 * that cannot be suspended, no stack or gadgets for the way back, …); -ESRCH
 * when it is gone; -ETIMEDOUT when it does not stop; -errno. All are logged,
 * and but for -ETIMEDOUT the target runs on as if nothing had been.
 */
int parasite_infect(struct parasite **out, pid_t pid, int proc_fd, int pidfd);

/*
 * Makes a userfaultfd of the target's memory, close-on-exec and non-blocking,
 * not limited to user-mode faults: by userfaultfd(2) where the target may, else
 * through `dev_fd`, an open /dev/userfaultfd of the caller, or -1. Afterwards
 * the target holds neither. Only UFFDIO_API remains to be called.
 *
 * Returns 0 and a descriptor to close, RESULT_UNSUPPORTED when the target may
 * not and there is no `dev_fd`, or -errno; logged. The parasite must be cured
 * in every case.
 */
int parasite_make_uffd(struct parasite *p, int dev_fd, int *uffd);

/*
 * Puts the thread back exactly as it was found and lets it run; an interrupted
 * system call restarts. Frees `p` in any case; NULL is fine. Returns 0, -ESRCH
 * when the target is gone, or -errno (logged) when it had to be sent home by
 * its own means: it then runs on as well, but a sleep that was interrupted
 * starts over.
 */
int parasite_cure(struct parasite *p);
