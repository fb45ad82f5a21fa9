/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

#include <errno.h>
#include <signal.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "sys/sched.h"

static int write_slab(struct capture *capture, struct slab *slab)
{
	const struct capture_sink *sink = &capture->config.sink;
	const uint8_t *data = slab->data;
	int r = 0;

	for (size_t i = 0; !r && i < slab->n_segments; i++) {
		const struct segment *segment = &slab->segments[i];

		r = sink->put(sink->opaque, segment->region, segment->first,
			      segment->n, data, &slab->hold);
		data += segment->n * PAGE_SIZE;
		atomic_fetch_add(&capture->n_written, segment->n);
	}
	return r;
}

/* Slabs come back only when somebody looks after the writes under way, so this
 * never sleeps on the queue while there are any. */
static int next_slab(struct capture *capture, struct slab **slab)
{
	const struct capture_sink *sink = &capture->config.sink;
	int r = 1;

	while (r > 0) {
		*slab = slab_next(&capture->pool, false);
		if (*slab)
			return 0;
		r = sink->wait ? sink->wait(sink->opaque) : 0;
	}
	if (!r)
		*slab = slab_next(&capture->pool, true);
	return r;
}

static void *output_main(void *data)
{
	struct capture *capture = data;
	struct sched_before before = {};
	struct slab *slab = NULL;
	bool favoured = false;
	int r;

	do {
		/* Before the target only while the target waits for what comes
		 * back: else it would be starved between its faults. */
		if (slab_pool_is_short(&capture->pool) != favoured) {
			favoured = !favoured;
			if (favoured)
				before = sched_favour();
			else
				sched_restore(&before);
		}
		r = next_slab(capture, &slab);
		if (r || !slab)
			break;
		r = INJECT("output-write") ?: write_slab(capture, slab);
		hold_put(&slab->hold);
	} while (!r);
	if (r)
		capture_fail(capture, r);
	/* The slabs end with the capture. */
	if (capture->config.sink.drain)
		capture->config.sink.drain(capture->config.sink.opaque);
	return NULL;
}

int output_start(struct capture *capture)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = INJECT("output-start");
	if (!r)
		r = -pthread_create(&capture->output, NULL, output_main,
				    capture);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return log_errno(r, "cannot start the output thread: %m");
	capture->output_running = true;
	return 0;
}

void output_join(struct capture *capture)
{
	if (!capture->output_running)
		return;
	for (;;) {
		struct timespec until = capture_next_look();

		if (pthread_timedjoin_np(capture->output, NULL, &until) !=
		    ETIMEDOUT)
			break;
		if (interrupt_pending())
			capture_fail(capture, -EINTR);
		capture_report(capture);
	}
	capture->output_running = false;
}
