/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/guardian.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/util.h"

void guardian_begin(const char *name)
{
	static const int signals[] = { SIGINT,	SIGTERM, SIGHUP, SIGQUIT,
				       SIGPIPE, SIGTSTP, SIGALRM };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		signal(signals[i], SIG_IGN);
	setsid();
	prctl(PR_SET_NAME, name);
}
