/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Another dump of the same process. There is one at a time; but one that was
 * ended by SIGKILL of its front (cmd/front.h) may still be at putting the
 * target in order, and that is waited for.
 */

#include <sys/types.h>

/* 0: nobody is at it any more; RESULT_UNSUPPORTED, logged: somebody is;
 * -EINTR. */
int former_wait(pid_t pid);
