/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/sched.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

static struct sched_before read_current(void)
{
	struct sched_before before = { .nice = getpriority(PRIO_PROCESS, 0) };
	struct sched_param param = {};

	pthread_getschedparam(pthread_self(), &before.policy, &param);
	before.priority = param.sched_priority;
	return before;
}

struct sched_before sched_raise(void)
{
	struct sched_before before = read_current();
	struct sched_param rt = { .sched_priority = 1 };

	if (pthread_setschedparam(pthread_self(), SCHED_RR, &rt))
		setpriority(PRIO_PROCESS, 0, -20);
	return before;
}

struct sched_before sched_favour(void)
{
	struct sched_before before = read_current();

	setpriority(PRIO_PROCESS, 0, -20);
	return before;
}

void sched_restore(const struct sched_before *before)
{
	struct sched_param param = { .sched_priority = before->priority };

	pthread_setschedparam(pthread_self(), before->policy, &param);
	setpriority(PRIO_PROCESS, 0, before->nice);
}
