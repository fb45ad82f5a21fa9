/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/util.h"

json_t *text_to_json(const char *text)
{
	return text ? json_string(text) ?: json_string("?") : json_null();
}

json_t *texts_to_json(char *const *texts, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, text_to_json(texts[i]));
	return list;
}

int print_json(json_t *object)
{
	int r = object ? json_dumpf(object, stdout,
				    JSON_INDENT(2) | JSON_ENSURE_ASCII)
		       : -1;

	json_decref(object);
	putchar('\n');
	return r || fflush(stdout) ? -EIO : 0;
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static double us(uint64_t ns)
{
	return (double)ns / 1e3;
}

static json_int_t count(uint64_t n)
{
	return (json_int_t)n;
}

static json_t *faults_to_json(const struct histogram *h,
			      const struct histogram *queue)
{
	return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
			 "count", count(h->n), "p50_us",
			 us(histogram_quantile(h, 0.5)), "p90_us",
			 us(histogram_quantile(h, 0.9)), "p99_us",
			 us(histogram_quantile(h, 0.99)), "p999_us",
			 us(histogram_quantile(h, 0.999)), "max_us", us(h->max),
			 "queue_p50_us", us(histogram_quantile(queue, 0.5)),
			 "queue_p99_us", us(histogram_quantile(queue, 0.99)),
			 "queue_max_us", us(queue->max));
}

json_t *stats_to_json(const struct image_stats *s)
{
	return json_pack(
		"{s:f, s:f, s:f, s:{s:I, s:I, s:I, s:I, s:I}, s:I, s:I, s:I, s:I, s:o}",
		"pause_ms", ms(s->pause_ns), "captured_ms", ms(s->captured_ns),
		"duration_ms", ms(s->duration_ns), "pages", "total",
		count(s->pages_total), "data", count(s->pages_data), "zero",
		count(s->pages_zero), "parent", count(s->pages_parent), "fault",
		count(s->pages_fault), "bytes_written", count(s->bytes_written),
		"peak_buffer_bytes", count(s->peak_buffer_bytes), "noted_pages",
		count(s->noted_pages), "rearmed_pages", count(s->rearmed_pages),
		"faults", faults_to_json(&s->faults, &s->queue));
}

void stats_print(FILE *to, const struct image_stats *s)
{
	const struct histogram *h = &s->faults;
	char a[32], b[32];

	fprintf(to, "pause      %.1f ms\n", ms(s->pause_ns));
	fprintf(to, "captured   %.0f ms after the pause\n", ms(s->captured_ns));
	fprintf(to, "duration   %.0f ms\n", ms(s->duration_ns));
	fprintf(to, "memory     %s, of which %s held data\n",
		format_size(a, s->pages_total * PAGE_SIZE),
		format_size(b, s->pages_data * PAGE_SIZE));
	fprintf(to, "buffers    %s at most\n",
		format_size(a, s->peak_buffer_bytes));
	if (!h->n) {
		fprintf(to, "faults     none\n");
		return;
	}
	fprintf(to,
		"faults     %" PRIu64
		", which captured %s; served in p50 %.0f us, p99 %.0f us, p99.9 %.0f us, worst %.0f us\n",
		h->n, format_size(a, s->pages_fault * PAGE_SIZE),
		us(histogram_quantile(h, 0.5)), us(histogram_quantile(h, 0.99)),
		us(histogram_quantile(h, 0.999)), us(h->max));
}
