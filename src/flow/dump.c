/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/dump.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "flow/dump_process.h"
#include "flow/dump_vm.h"
#include "qemu/program.h"
#include "sys/procfs.h"

/* A target that is gone, or may not be looked at, is refused later. */
static enum image_kind choose_kind(const struct dump_options *options)
{
	_cleanup_close_ int proc_fd = -1;

	if (options->kind == DUMP_KIND_PROCESS)
		return IMAGE_KIND_PROCESS;
	if (options->kind == DUMP_KIND_QEMU || options->qmp)
		return IMAGE_KIND_QEMU;
	proc_fd = procfs_open(options->pid);
	return proc_fd < 0 || program_is_qemu(proc_fd) ? IMAGE_KIND_QEMU
						       : IMAGE_KIND_PROCESS;
}

int flow_dump(const struct dump_options *options, enum image_kind *kind,
	      struct image_stats *stats)
{
	int r;

	*kind = choose_kind(options);
	r = *kind == IMAGE_KIND_QEMU ? dump_vm(options, stats)
				     : dump_process(options, stats);
	if (r == -EINTR)
		log_error(
			"pid %d: interrupted; the target runs on, nothing was kept",
			options->pid);
	return r;
}
