/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Whether this host and this target can be dumped, and if not, what is
 * missing. Touches nothing but the VM's monitor.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "flow/dump.h"
#include "flow/ram.h"
#include "qemu/vm.h"
#include "sys/probe.h"

struct check_capability {
	const char *name;
	bool have;
	const char *use;
};

#define CHECK_CAPABILITIES 6

struct check_report {
	struct probe_result kernel[PROBE_MAX];
	size_t n_kernel;
	struct check_capability capabilities[CHECK_CAPABILITIES];
	bool host_ok;

	/* With a target only: */
	pid_t pid;
	enum image_kind kind; /* 0: without */
	char *program;
	struct vm_strings obstacles; /* what would stop a dump */
	/* A process: */
	unsigned n_threads;
	size_t n_mappings;
	uint64_t capture_bytes; /* at most, while it runs on */
	uint64_t copy_bytes;	/* while it stands */
	struct vm_strings remarks;
	/* A QEMU: */
	char *qemu_version;
	char *machine;
	struct vm_status vm;
	struct ram ram;
};

void check_report_deinit(struct check_report *report);

struct check_options {
	pid_t pid; /* 0: with no domain, the host alone is looked at */
	enum dump_kind kind;
	const char *qmp;	      /* path; NULL: find it */
	const char *domain, *connect; /* as in struct dump_options */
};

/*
 * Fills the report. Returns 0 when a dump can
 * be made, RESULT_UNSUPPORTED when not (the report or an error line says why),
 * or -errno.
 */
int flow_check(const struct check_options *options,
	       struct check_report *report);
