/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/destination.h"

#include <errno.h>
#include <stdlib.h>

#include "base/inject.h"
#include "base/pace.h"
#include "base/util.h"
#include "flow/output.h"
#include "flow/page_stream.h"

struct to_stream {
	struct destination base;
	const char *path;
	struct pace pace;
	struct output output;
	struct page_stream *pages;
};

static int write_paced(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct to_stream *to = opaque;

	pace_wait(&to->pace, len);
	return output_append(&to->output, at, buf, len);
}

/* Nothing of the stream is written before there are pages. */
static int begin(struct destination *base, const struct snapshot *snapshot)
{
	struct to_stream *to = (struct to_stream *)base;
	struct savevm_sink sink = { write_paced, to };
	int r = output_open(&to->output, to->path);

	if (r)
		return r;
	return page_stream_new(&to->pages, &sink,
			       snapshot->machine->machine_class, snapshot->ram);
}

static int put_pages(void *opaque, unsigned region, uint64_t first_page,
		     uint64_t n_pages, const void *data, struct hold *hold)
{
	struct to_stream *to = opaque;

	(void)hold; /* the data is needed no longer than this takes */
	INJECT_HERE("stream-put");
	return page_stream_put(to->pages, region, first_page, n_pages, data);
}

static void cancel(void *opaque)
{
	struct to_stream *to = opaque;

	output_cancel(&to->output);
}

static int finish(struct destination *base, const struct snapshot *snapshot,
		  struct image_stats *stats)
{
	struct to_stream *to = (struct to_stream *)base;
	int r = page_stream_end(to->pages, snapshot->devices->data,
				snapshot->devices->len);

	INJECT_INTO(r, "stream-end-done");
	if (!r)
		r = output_finish(&to->output);
	stats->pages_data = page_stream_data_pages(to->pages);
	stats->pages_zero = stats->pages_total - stats->pages_data;
	stats->bytes_written = page_stream_bytes(to->pages);
	stats->duration_ns = now_ns() - snapshot->started_ns;
	return r;
}

static void free_stream(struct destination *base)
{
	struct to_stream *to = (struct to_stream *)base;

	page_stream_free(to->pages);
	output_discard(&to->output);
	free(to);
}

struct destination *destination_new_stream(const char *path, uint64_t rate)
{
	struct to_stream *to = calloc(1, sizeof(*to));

	if (!to)
		return NULL;
	to->base = (struct destination){
		.begin = begin,
		.finish = finish,
		.free = free_stream,
		.sink = { .put = put_pages, .cancel = cancel, .opaque = to },
	};
	to->path = path;
	to->output = OUTPUT_INIT;
	pace_init(&to->pace, rate);
	return &to->base;
}
