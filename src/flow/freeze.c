/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/freeze.h"

#include "base/inject.h"
#include "base/util.h"
#include "qemu/vm.h"
#include "sys/sched.h"

int freeze_begin(struct freeze *freeze, struct qmp *qmp, struct keeper *keeper,
		 bool running)
{
	int r;

	*freeze = (struct freeze){ .qmp = qmp, .keeper = keeper };
	if (!running)
		return 0;
	r = keeper_guard(keeper, true);
	if (r)
		return r;
	freeze->stopped = true;
	freeze->before = sched_raise();
	freeze->started_ns = now_ns();
	r = INJECT("vm-stop") ?: vm_stop(qmp);
	INJECT_INTO(r, "vm-stop-done");
	return r;
}

int freeze_end(struct freeze *freeze, uint64_t *pause_ns)
{
	int r;

	*pause_ns = 0;
	if (!freeze->stopped)
		return 0;
	r = INJECT("vm-cont") ?: vm_cont(freeze->qmp);
	*pause_ns = now_ns() - freeze->started_ns;
	sched_restore(&freeze->before);
	/* If `cont` failed, the keeper is left on guard and tries again. */
	if (r)
		return r;
	freeze->stopped = false;
	return INJECT("vm-cont-done") ?: keeper_guard(freeze->keeper, false);
}

void freeze_undo(struct freeze *freeze)
{
	uint64_t ignored;

	if (freeze->stopped)
		freeze_end(freeze, &ignored);
	freeze->stopped = false;
}
