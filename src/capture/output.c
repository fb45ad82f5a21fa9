/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

#include <errno.h>
#include <signal.h>

#include "base/log.h"

static int write_slab(struct capture *capture, const struct slab *slab)
{
	const struct capture_sink *sink = &capture->config.sink;
	const uint8_t *data = slab->data;
	int r = 0;

	for (size_t i = 0; !r && i < slab->n_segments; i++) {
		const struct segment *segment = &slab->segments[i];

		r = sink->put(sink->opaque, segment->region, segment->first,
			      segment->n, data);
		data += segment->n * PAGE_SIZE;
	}
	return r;
}

static void *output_main(void *data)
{
	struct capture *capture = data;
	struct slab *slab;

	while ((slab = slab_next(&capture->pool))) {
		int r = write_slab(capture, slab);

		slab_put(&capture->pool, slab);
		if (r) {
			capture_fail(capture, r);
			break;
		}
	}
	return NULL;
}

int output_start(struct capture *capture)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&capture->output, NULL, output_main, capture);
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
	pthread_join(capture->output, NULL);
	capture->output_running = false;
}
