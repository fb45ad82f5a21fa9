/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "flow/machine.h"
#include "qemu/devstate.h"
#include "qemu/disks.h"
#include "qemu/qmp.h"
#include "qemu/ramblock.h"
#include "qemu/vm.h"
#include "target/target.h"

/*
 * What a monitor answers. Each line of the input is the value of one answer's
 * "return", in the order in which things are asked; one that begins with '!' is
 * the whole message. Behind the last line QEMU has hung up.
 */
struct monitor {
	const char *text;
	bool greeted, negotiated;
	long id; /* of the command that came last */
	char *message;
};

static int monitor_send(void *transport, const char *buf, size_t len, int fd,
			uint64_t deadline_ns)
{
	struct monitor *monitor = transport;
	const char *id = memmem(buf, len, "\"id\":", 5);

	(void)fd;
	(void)deadline_ns;
	fuzz_require(id);
	monitor->id = strtol(id + 5, NULL, 10);
	return 0;
}

static int say(struct monitor *monitor, const char **text, size_t *len, int n)
{
	fuzz_require(n >= 0);
	*text = monitor->message;
	*len = (size_t)n;
	return 0;
}

static int monitor_receive(void *transport, const char **text, size_t *len,
			   uint64_t deadline_ns)
{
	struct monitor *monitor = transport;
	size_t n = strcspn(monitor->text, "\n");
	const char *line = monitor->text;

	(void)deadline_ns;
	free_ptr(&monitor->message);
	if (!monitor->greeted) {
		monitor->greeted = true;
		return say(monitor, text, len,
			   asprintf(&monitor->message,
				    "{\"QMP\": {\"version\": {\"qemu\":"
				    " {\"major\": 8, \"minor\": 2,"
				    " \"micro\": 1}, \"package\": \"p\"}}}"));
	}
	if (!monitor->negotiated) {
		monitor->negotiated = true;
		return say(monitor, text, len,
			   asprintf(&monitor->message,
				    "{\"return\": {}, \"id\": %ld}",
				    monitor->id));
	}
	if (!*line)
		return -ECONNRESET;
	monitor->text += n + (line[n] == '\n');
	if (*line == '!')
		return say(monitor, text, len,
			   asprintf(&monitor->message, "%.*s", (int)n - 1,
				    line + 1));
	return say(monitor, text, len,
		   asprintf(&monitor->message,
			    "{\"return\": %.*s, \"id\": %ld}", (int)n, line,
			    monitor->id));
}

static int monitor_fd(const void *transport)
{
	(void)transport;
	return -1;
}

static void monitor_free(void *transport)
{
	struct monitor *monitor = transport;

	free_ptr(&monitor->message);
}

static const struct qmp_transport_ops monitor_ops = {
	.send = monitor_send,
	.receive = monitor_receive,
	.fd = monitor_fd,
	.free = monitor_free,
};

/* In the order of the lines of an input. */
static void ask(struct qmp *qmp, const struct target *target)
{
	_cleanup_vm_strings_ struct vm_strings reasons = {};
	struct image_machine machine = {};
	struct vm_status status;
	struct disks disks = {};
	struct ram ram = {};

	if (!vm_query_status(qmp, &status))
		vm_check_state(&status);
	vm_list_blockers(qmp, &reasons);
	vm_list_dma_writers(qmp, &reasons);
	vm_list_backends(qmp, &reasons);
	if (!disks_query(qmp, &disks))
		disks_open(&disks, target->proc_fd);
	disks_look(&disks);
	disks_deinit(&disks);
	ram_blocks_query(qmp, &ram.blocks);
	machine_gather(&machine, target, qmp, &ram, true);
	ram_blocks_deinit(&ram.blocks);
	image_machine_deinit(&machine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct fuzz_part cmdline = { (uint8_t *)"q\0-m\0"
							     "4",
						  6 };
	struct fuzz_part part = { data, len };
	struct target target = TARGET_INIT;
	char *text = fuzz_string(part);
	struct monitor monitor = { .text = text };
	struct qmp *qmp;

	target.proc_fd = fuzz_dir();
	fuzz_put("cmdline", cmdline);
	if (!qmp_open(&monitor_ops, &monitor, 1000, &qmp, NULL, 0)) {
		ask(qmp, &target);
		qmp_free(qmp);
	}
	free(text);
	return 0;
}
