/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/freeze.h"

#include <errno.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "qemu/vm.h"
#include "sys/sched.h"

/* How long QEMU may take to answer `cont` on the way out; after that it is the
 * keeper who tries. */
#define CONT_TIMEOUT_MS 600u

/* For the last call: it should not be given up for the slowness of those
 * before. */
#define CONT_MIN_MS 500u

/* What is left of the time; at least 1 ms. */
static unsigned left_ms(const struct freeze *freeze)
{
	uint64_t until_ns =
		freeze->started_ns + freeze->excused_ns + freeze->max_ns;
	uint64_t now = now_ns(), left_ns;

	if (!freeze->max_ns)
		return QMP_DEFAULT_TIMEOUT_MS;
	left_ns = until_ns > now ? until_ns - now : 0;
	return (unsigned)min_u64(QMP_DEFAULT_TIMEOUT_MS, left_ns / 1000000 + 1);
}

/* Whoever watches is to wait for no less than that. */
static void begin_watch(struct freeze *freeze, uint64_t also_ns)
{
	uint64_t max_ns = freeze->watch ? freeze->watch->max_ns : 0;

	watch_begin_long(freeze->watch, WATCH_PAUSE,
			 max_u64(max_ns, freeze->max_ns * 4 / 3) + also_ns);
}

/* Whoever was stopped for a while, and is to give up, had no time to hear the
 * answer. */
static int qmp_failed(const struct freeze *freeze, const char *command, int r)
{
	if (r == -ETIMEDOUT && interrupt_pending())
		return -EINTR;
	return log_errno(r, "pid %d: qmp: %s: %s%s", freeze->pid, command,
			 qmp_error(freeze->qmp),
			 r == -ETIMEDOUT && freeze->max_ns ? " (--max-pause)"
							   : "");
}

int freeze_begin(struct freeze *freeze, bool running)
{
	int r;

	begin_watch(freeze, 0);
	if (!running)
		return 0;
	r = keeper_guard(freeze->keeper, true);
	if (r)
		return r;
	freeze->stopped = true;
	freeze->before = sched_raise();
	freeze->started_ns = now_ns();
	qmp_set_timeout(freeze->qmp, left_ms(freeze));
	r = INJECT("vm-stop") ?: vm_stop(freeze->qmp);
	INJECT_INTO(r, "vm-stop-done");
	return r ? qmp_failed(freeze, "stop", r) : 0;
}

int freeze_check(struct freeze *freeze)
{
	if (interrupt_pending())
		return -EINTR;
	if (!freeze->stopped)
		return 0;
	if (freeze->max_ns && now_ns() - freeze->started_ns >
				      freeze->max_ns + freeze->excused_ns) {
		log_error(
			"pid %d: the pause would have been longer than %llu ms (--max-pause)",
			freeze->pid,
			(unsigned long long)(freeze->max_ns / 1000000));
		return RESULT_FAILED;
	}
	qmp_set_timeout(freeze->qmp, left_ms(freeze));
	return 0;
}

void freeze_excuse(struct freeze *freeze, uint64_t limit_ns)
{
	begin_watch(freeze, limit_ns);
}

void freeze_go_on(struct freeze *freeze, uint64_t took_ns)
{
	freeze->excused_ns += took_ns;
	begin_watch(freeze, 0);
}

int freeze_end(struct freeze *freeze, uint64_t *pause_ns)
{
	unsigned ms = left_ms(freeze);
	int r = 0;

	*pause_ns = 0;
	if (freeze->stopped) {
		begin_watch(freeze, 0);
		r = INJECT("vm-cont")
			    ?: vm_cont(freeze->qmp,
				       ms > CONT_MIN_MS ? ms : CONT_MIN_MS);
		*pause_ns = now_ns() - freeze->started_ns;
		sched_restore(&freeze->before);
		/* If `cont` failed, the keeper is left on guard and tries
		 * again. */
		if (r)
			return qmp_failed(freeze, "cont", r);
		freeze->stopped = false;
		r = INJECT("vm-cont-done")
			    ?: keeper_guard(freeze->keeper, false);
	}
	watch_end(freeze->watch, WATCH_PAUSE);
	qmp_set_timeout(freeze->qmp, QMP_DEFAULT_TIMEOUT_MS);
	return r;
}

void freeze_undo(struct freeze *freeze)
{
	if (freeze->stopped) {
		begin_watch(freeze, 0);
		sched_restore(&freeze->before);
		/* Why it is undone was told. Else, as above. */
		if (!vm_cont(freeze->qmp, CONT_TIMEOUT_MS))
			keeper_guard(freeze->keeper, false);
		freeze->stopped = false;
	}
	watch_end(freeze->watch, WATCH_PAUSE);
}
