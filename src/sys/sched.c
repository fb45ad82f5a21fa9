/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/sched.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

void sched_raise(void)
{
	struct sched_param rt = { .sched_priority = 1 };

	if (pthread_setschedparam(pthread_self(), SCHED_RR, &rt))
		setpriority(PRIO_PROCESS, 0, -20);
}

void sched_favour(void)
{
	setpriority(PRIO_PROCESS, 0, -20);
}

void sched_lower(void)
{
	struct sched_param other = { .sched_priority = 0 };

	pthread_setschedparam(pthread_self(), SCHED_OTHER, &other);
	setpriority(PRIO_PROCESS, 0, 0);
}
