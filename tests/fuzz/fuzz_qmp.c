/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#include "qemu/disks.h"
#include "qemu/qmp.h"
#include "qemu/vm.h"

/*
 * Whatever a monitor's socket has to say: framing, JSON, greeting, answers. It
 * has been said, and the other end has hung up, before anything is asked.
 */
static void ask(struct qmp *qmp)
{
	struct vm_status status;
	struct disks disks = {};
	char *machine = NULL;

	if (!vm_query_status(qmp, &status))
		vm_check_state(&status);
	vm_query_machine(qmp, &machine);
	free(machine);
	if (!disks_query(qmp, &disks))
		disks_deinit(&disks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct qmp *qmp;
	char why[128];
	int socks[2];

	fuzz_require(
		!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks));
	/* What does not fit is cut off. */
	if (len && send(socks[1], data, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		len = 0;
	/* Commands can still be sent. */
	shutdown(socks[1], SHUT_WR);
	if (!qmp_open_fd(socks[0], 1000, &qmp, why, sizeof(why))) {
		qmp_set_timeout(qmp, 1000);
		ask(qmp);
		qmp_free(qmp);
	}
	close(socks[1]);
	return 0;
}
