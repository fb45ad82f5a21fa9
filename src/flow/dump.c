/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/dump.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/dump_process.h"
#include "flow/dump_vm.h"
#include "flow/former.h"
#include "flow/watchdog.h"
#include "qemu/program.h"
#include "sys/procfs.h"

#define MAX_PAUSE_PROCESS_NS NS_PER_S

/* A target that is gone, or may not be looked at, is refused later. */
enum image_kind dump_choose_kind(pid_t pid, enum dump_kind kind,
				 const char *qmp_path)
{
	_cleanup_close_ int proc_fd = -1;

	if (kind == DUMP_KIND_PROCESS)
		return IMAGE_KIND_PROCESS;
	if (kind == DUMP_KIND_QEMU || qmp_path)
		return IMAGE_KIND_QEMU;
	proc_fd = procfs_open(pid);
	return proc_fd < 0 || program_is_qemu(proc_fd) ? IMAGE_KIND_QEMU
						       : IMAGE_KIND_PROCESS;
}

static int check_format(const struct dump_options *options,
			enum image_kind kind)
{
	_cleanup_close_ int proc_fd = procfs_open(options->pid);
	const char *what = NULL;

	/* One that is gone is nothing; that is said later. */
	if (proc_fd < 0)
		return 0;

	if (kind == IMAGE_KIND_QEMU && options->format == DUMP_CORE)
		what = "--format core: is of a process; this is a QEMU (--as process dumps it as one)";
	else if (kind == IMAGE_KIND_QEMU && options->tree)
		what = "--tree: is for processes that are not QEMU";
	else if (kind == IMAGE_KIND_QEMU && options->all)
		what = "--all: is for processes that are not QEMU";
	else if (kind == IMAGE_KIND_QEMU && options->by_cgroup)
		what = "--freeze cgroup: is for processes that are not QEMU";
	else if (kind == IMAGE_KIND_PROCESS && options->n_also &&
		 options->format != DUMP_IMAGE)
		what = "--pid, more than one: makes images, one for each process";
	else if (kind == IMAGE_KIND_PROCESS && options->format == DUMP_QEMU)
		what = "--format qemu: is of a QEMU, which this is not";
	else if (kind == IMAGE_KIND_PROCESS &&
		 (options->storage.overlay || options->storage.command))
		what = "--disks and --exec-frozen: are for a QEMU, which this is not";
	if (!what)
		return 0;
	log_error("pid %d: %s", options->pid, what);
	return RESULT_USAGE;
}

bool dump_makes_many(const struct dump_options *options)
{
	return options->tree || options->n_also;
}

static int wait_for_former(const struct dump_options *options)
{
	int r = former_wait(options->pid);

	for (size_t i = 0; !r && i < options->n_also; i++)
		r = former_wait(options->also[i]);
	return r;
}

/*
 * A VM is stopped by QEMU, which first finishes what its disks have under way,
 * so a pause may be long though nothing is wrong. What bounds it is how long
 * the target may be kept waiting for, less what is needed to continue it.
 */
static uint64_t choose_max_pause(const struct dump_options *options,
				 enum image_kind kind)
{
	if (options->max_pause_ns)
		return options->max_pause_ns;
	return kind == IMAGE_KIND_QEMU ? options->max_stall_ns / 4 * 3
				       : MAX_PAUSE_PROCESS_NS;
}

static int dump_watched(const struct dump_options *options,
			struct dump_report *report)
{
	_cleanup_watchdog_ struct watchdog dog = WATCHDOG_INIT;
	struct dump_options chosen = *options;
	int r;

	chosen.max_pause_ns = choose_max_pause(options, report->kind);
	r = watchdog_start(&dog, options->pid, options->max_stall_ns);
	if (!r && report->kind == IMAGE_KIND_QEMU)
		r = dump_vm(&chosen, dog.watch, report);
	else if (!r)
		r = dump_process(&chosen, dog.watch, report);
	/* It has said why. */
	return watchdog_stop(&dog) && r ? RESULT_FAILED : r;
}

static int dump(const struct dump_options *options, struct dump_report *report)
{
	int r;

	report->kind =
		dump_choose_kind(options->pid, options->kind, options->qmp);
	r = check_format(options, report->kind);
	if (r)
		return r;
	r = wait_for_former(options);
	if (!r)
		r = dump_watched(options, report);
	if (r == -EINTR)
		log_error(
			"pid %d: interrupted; the target runs on, nothing was kept",
			options->pid);
	return r;
}

static int dump_domain(const struct dump_options *options,
		       struct dump_report *report)
{
	_cleanup_courier_ struct courier courier = COURIER_INIT;
	struct dump_options found = *options;
	int r;

	report->kind = IMAGE_KIND_QEMU;
	r = courier_start(&courier, options->connect, options->domain);
	if (r)
		return r;
	found.pid = courier.domain_pid;
	found.kind = DUMP_KIND_QEMU;
	found.courier = &courier;
	return dump(&found, report);
}

int flow_dump(const struct dump_options *options, struct dump_report *report)
{
	*report = (struct dump_report){};
	return options->domain ? dump_domain(options, report)
			       : dump(options, report);
}

void dump_report_deinit(struct dump_report *report)
{
	vm_strings_deinit(&report->unsafe);
}
