/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/result.h"
#include "flow/admit.h"
#include "flow/check_process.h"
#include "flow/connect.h"
#include "flow/vm_writers.h"
#include "sys/caps.h"
#include "target/target.h"

static void check_host(struct check_report *report)
{
	static const struct {
		cap_value_t cap;
		struct check_capability text;
	} wanted[CHECK_CAPABILITIES] = {
		{ CAP_SYS_PTRACE,
		  { .name = "CAP_SYS_PTRACE",
		    .use = "read and trace targets of other users" } },
		{ CAP_DAC_OVERRIDE,
		  { .name = "CAP_DAC_OVERRIDE",
		    .use = "reach the monitors of other users' VMs" } },
		{ CAP_DAC_READ_SEARCH,
		  { .name = "CAP_DAC_READ_SEARCH",
		    .use = "open /dev/userfaultfd, and files that are mapped" } },
		{ CAP_SYS_ADMIN,
		  { .name = "CAP_SYS_ADMIN",
		    .use = "suspend a target's seccomp filter" } },
		{ CAP_CHECKPOINT_RESTORE,
		  { .name = "CAP_CHECKPOINT_RESTORE",
		    .use = "open mapped files that the target has closed" } },
		{ CAP_SYS_NICE,
		  { .name = "CAP_SYS_NICE",
		    .use = "serve write faults before all else" } },
	};

	report->host_ok = true;
	report->n_kernel = probe_kernel(report->kernel);
	for (size_t i = 0; i < report->n_kernel; i++)
		if (report->kernel[i].state == PROBE_REQUIRED)
			report->host_ok = false;
	for (size_t i = 0; i < CHECK_CAPABILITIES; i++) {
		report->capabilities[i] = wanted[i].text;
		report->capabilities[i].have = caps_have(wanted[i].cap);
	}
}

static int add_all(const struct vm_strings *from, const char *way_out,
		   struct vm_strings *to)
{
	int r = 0;

	for (size_t i = 0; !r && i < from->n_items; i++)
		r = vm_strings_add(to, "%s%s", from->items[i], way_out);
	return r;
}

static int list_writers(struct check_report *report,
			const struct target *target, struct qmp *qmp)
{
	static const struct writers_policy nobody;
	_cleanup_vm_writers_found_ struct vm_writers_found found = {};
	_cleanup_writers_ struct writers writers = {};
	int r = vm_writers_find(&found, &writers, &nobody, target, qmp,
				&report->ram);

	if (!r)
		r = add_all(&found.dma, "", &report->obstacles);
	if (!r)
		r = add_all(&found.backends, "", &report->obstacles);
	if (!r)
		r = add_all(&found.others,
			    " (dump --writers auto holds it back)",
			    &report->obstacles);
	return r;
}

static int check_vm(struct check_report *report, const struct target *target,
		    struct qmp *qmp)
{
	const struct qmp_version *version = qmp_get_version(qmp);
	int r;

	if (asprintf(&report->qemu_version, "%d.%d.%d", version->major,
		     version->minor, version->micro) < 0)
		return -ENOMEM;
	r = vm_query_status(qmp, &report->vm);
	if (!r)
		r = vm_query_machine(qmp, &report->machine);
	if (!r)
		r = ram_init(&report->ram, target, qmp);
	if (!r)
		r = vm_list_blockers(qmp, &report->obstacles);
	if (!r)
		r = list_writers(report, target, qmp);
	if (!r)
		r = vm_check_state(&report->vm);
	return r;
}

static int check_qemu(struct check_report *report, const struct target *target,
		      const char *qmp_path, struct courier *courier)
{
	_cleanup_qmp_ struct qmp *qmp = NULL;
	int r = connect_vm(target, qmp_path, courier, &qmp);

	/* Without a monitor there is no VM to be told of. */
	report->kind = r ? 0 : IMAGE_KIND_QEMU;
	return r ? r : check_vm(report, target, qmp);
}

/* What keeps us from infecting it. There is no more to tell then: the monitor
 * of who has no descriptor left, or a debugger, may not answer. */
static int check_admission(struct check_report *report,
			   const struct target *target, enum image_kind kind)
{
	_cleanup_free_ char *obstacle = NULL;
	int r = admit_find_obstacle(target, kind == IMAGE_KIND_PROCESS,
				    &obstacle);

	if (r || !obstacle)
		return r;
	r = vm_strings_add(&report->obstacles, "%s", obstacle);
	return r ? r : RESULT_UNSUPPORTED;
}

static int check_target(struct check_report *report,
			const struct check_options *options,
			struct courier *courier)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	enum image_kind kind = IMAGE_KIND_QEMU;
	int r = target_open(&target, report->pid);

	if (r)
		return r;
	procfs_read_link(target.proc_fd, "exe", &report->program);
	if (!courier)
		kind = dump_choose_kind(report->pid, options->kind,
					options->qmp);
	r = check_admission(report, &target, kind);
	if (r)
		return r;
	report->kind = kind;
	return report->kind == IMAGE_KIND_QEMU
		       ? check_qemu(report, &target, options->qmp, courier)
		       : check_process(report, &target);
}

int flow_check(const struct check_options *options, struct check_report *report)
{
	_cleanup_courier_ struct courier courier = COURIER_INIT;
	int r = 0;

	*report = (struct check_report){ .pid = options->pid };
	check_host(report);
	if (options->domain) {
		r = courier_start(&courier, options->connect, options->domain);
		report->pid = courier.domain_pid;
	}
	if (!r && report->pid)
		r = check_target(report, options,
				 options->domain ? &courier : NULL);
	if (r)
		return r;
	return report->host_ok && !report->obstacles.n_items
		       ? 0
		       : RESULT_UNSUPPORTED;
}

void check_report_deinit(struct check_report *report)
{
	free(report->program);
	free(report->qemu_version);
	free(report->machine);
	ram_deinit(&report->ram);
	vm_strings_deinit(&report->obstacles);
	vm_strings_deinit(&report->remarks);
}
