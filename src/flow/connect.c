/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/connect.h"

#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "qemu/find.h"
#include "qemu/program.h"

static int connect_courier(const struct target *target, struct courier *courier,
			   struct qmp **out)
{
	char why[256];
	int r = qmp_open_fd(steal_fd(&courier->sock), QMP_DEFAULT_TIMEOUT_MS,
			    out, why, sizeof(why));

	return r ? log_errno(r, "pid %d: libvirt: %s", target->pid, why) : 0;
}

int connect_vm(const struct target *target, const char *qmp_path,
	       struct courier *courier, struct qmp **out)
{
	if (courier)
		return connect_courier(target, courier, out);
	if (qmp_path && !strcmp(qmp_path, "none")) {
		log_error(
			"pid %d: --qmp none: a QEMU cannot be dumped without its monitor",
			target->pid);
		return RESULT_UNSUPPORTED;
	}
	if (!qmp_path && !program_is_qemu(target->proc_fd)) {
		log_error(
			"pid %d: %s is not a QEMU, and only QEMU can be dumped; if it is one, name its monitor with --qmp",
			target->pid, target->status.name);
		return RESULT_UNSUPPORTED;
	}
	return find_qmp(target->pid, target->proc_fd, qmp_path, out);
}
