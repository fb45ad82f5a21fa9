/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "sys/caps.h"

#include <errno.h>

#include "base/cleanup.h"

static void free_caps(cap_t *caps)
{
	if (*caps)
		cap_free(*caps);
}

#define _cleanup_caps_ _cleanup_(free_caps)

bool caps_have(cap_value_t cap)
{
	_cleanup_caps_ cap_t caps = cap_get_proc();
	cap_flag_value_t value = CAP_CLEAR;

	return caps && !cap_get_flag(caps, cap, CAP_EFFECTIVE, &value) &&
	       value == CAP_SET;
}

int caps_reduce(const cap_value_t *keep, size_t n_keep)
{
	_cleanup_caps_ cap_t reduced = cap_init();

	if (!reduced)
		return -errno;
	for (size_t i = 0; i < n_keep; i++) {
		if (!caps_have(keep[i]))
			continue;
		if (cap_set_flag(reduced, CAP_PERMITTED, 1, &keep[i],
				 CAP_SET) ||
		    cap_set_flag(reduced, CAP_EFFECTIVE, 1, &keep[i], CAP_SET))
			return -errno;
	}
	return cap_set_proc(reduced) ? -errno : 0;
}
