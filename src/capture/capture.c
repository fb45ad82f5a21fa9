/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "sys/pidfd.h"
#include "sys/uffd.h"

int capture_new(struct capture **out, const struct capture_config *config)
{
	_cleanup_close_ int uffd = config->uffd;
	struct capture *capture = calloc(1, sizeof(*capture));

	if (!capture)
		return -ENOMEM;
	capture->config = *config;
	capture->faults.wake_fd = -1;
	steal_fd(&uffd);
	*out = capture;
	return 0;
}

int capture_add_region(struct capture *capture, const struct region_desc *desc)
{
	struct region *regions;
	int r;

	regions = reallocarray(capture->regions, capture->n_regions + 1,
			       sizeof(*regions));
	if (!regions)
		return -ENOMEM;
	capture->regions = regions;
	r = region_init(&regions[capture->n_regions], desc,
			capture->config.granule_bytes);
	if (!r)
		capture->n_regions++;
	return r;
}

struct region *capture_find_region(struct capture *capture, uint64_t addr)
{
	size_t low = 0, high = capture->n_regions;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		struct region *region =
			&capture->regions[capture->by_address[mid]];

		if (addr < region->desc.range.start)
			high = mid;
		else if (addr >= region->desc.range.end)
			low = mid + 1;
		else
			return region;
	}
	return NULL;
}

/* Ends all waiting, for buffers and of the sink. */
static void end_waiting(struct capture *capture)
{
	const struct capture_sink *sink = &capture->config.sink;

	if (capture->has_pool)
		slab_pool_fail(&capture->pool);
	if (sink->cancel)
		sink->cancel(sink->opaque);
}

int capture_fail(struct capture *capture, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&capture->verdict, &none, error);
	atomic_store(&capture->mode, MODE_RELEASE);
	end_waiting(capture);
	return atomic_load(&capture->verdict);
}

int capture_target_died(const struct capture *capture)
{
	return log_errno(-ESRCH, "pid %d: the target died during the dump",
			 capture->config.pid);
}

int capture_copy_failed(struct capture *capture, struct range range, int error)
{
	pid_t pid = capture->config.pid;

	if (error == -ENOENT) {
		log_error(
			"pid %d: memory at %#llx went away before it was captured; the snapshot is discarded",
			pid, (unsigned long long)range.start);
		return RESULT_INCONSISTENT;
	}
	if (error == -ESTALE) {
		log_error(
			"pid %d: memory at %#llx lost its protection before it was captured; the snapshot is discarded; if kernel samepage merging runs, stop it during the dump (echo 0 > /sys/kernel/mm/ksm/run)",
			pid, (unsigned long long)range.start);
		return RESULT_INCONSISTENT;
	}
	if (error == -ESRCH)
		return capture_target_died(capture);
	return log_errno(error, "pid %d: cannot read memory at %#llx: %m", pid,
			 (unsigned long long)range.start);
}

int capture_copy(struct capture *capture, struct region *region,
		 struct range range, struct slab *slab)
{
	const struct capture_config *config = &capture->config;
	int r;

	r = region_copy(region, region_number(capture, region), config->pid,
			range, slab);
	/* After the copy: what is protected now was so all the time. */
	if (!r)
		r = region_check_protected(region, config->pagemap_fd, range);
	return r ? capture_copy_failed(capture, range, r) : 0;
}

void capture_report(struct capture *capture)
{
	const struct capture_config *config = &capture->config;
	uint64_t now = now_ns();
	struct capture_progress progress;

	if (!config->progress || !capture->started_ns ||
	    now < capture->reported_ns + CAPTURE_PROGRESS_NS)
		return;
	capture->reported_ns = now;
	progress = (struct capture_progress){
		.pages_all = capture->n_populated,
		.pages_captured = capture->n_scanned +
				  atomic_load(&capture->faults.n_pages),
		.pages_written = atomic_load(&capture->n_written),
		.elapsed_ns = now - capture->started_ns,
		.faults = &capture->faults.latency,
	};
	config->progress(config->progress_opaque, &progress);
}

int capture_look_around(struct capture *capture)
{
	int verdict = atomic_load(&capture->verdict);

	if (verdict)
		return verdict;
	if (interrupt_pending())
		return capture_fail(capture, -EINTR);
	if (!pidfd_is_alive(capture->config.pidfd))
		return capture_fail(capture, capture_target_died(capture));
	capture_report(capture);
	return 0;
}

struct timespec capture_next_look(void)
{
	struct timespec at;

	clock_gettime(CLOCK_REALTIME, &at);
	at.tv_nsec += CAPTURE_PROGRESS_NS;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	return at;
}

int capture_run(struct capture *capture)
{
	int r;

	capture->started_ns = capture->reported_ns = now_ns();
	for (unsigned i = 0; i < capture->n_regions; i++)
		capture->n_populated +=
			bitmap_count(&capture->regions[i].populated, 0,
				     region_n_pages(&capture->regions[i]));
	r = scan_all(capture);
	if (r)
		return capture_fail(capture, r);
	/* What the fault thread owns is captured once it answers. */
	fault_thread_sync(capture);
	r = atomic_load(&capture->verdict);
	if (r)
		return r;
	atomic_store(&capture->mode, MODE_RELEASE);
	return 0;
}

/* All protection goes; who waits in it runs on. The target may be dead. */
static void disarm(struct capture *capture)
{
	if (!capture->armed)
		return;
	capture->armed = false;
	for (unsigned i = 0; i < capture->n_regions; i++)
		uffd_unregister(capture->config.uffd,
				capture->regions[i].desc.range);
}

int capture_drain(struct capture *capture)
{
	fault_thread_stop(capture);
	disarm(capture);
	close_fd(&capture->config.uffd);
	slab_pool_close(&capture->pool);
	output_join(capture);
	return atomic_load(&capture->verdict);
}

void capture_get_stats(struct capture *capture, struct capture_stats *stats)
{
	*stats = (struct capture_stats){
		.pages_fault = capture->faults.n_pages,
		.pages_copied = capture->faults.n_pages + capture->n_scanned,
		.noted_pages = capture->n_noted,
		.rearmed_pages = capture->n_rearmed,
		.peak_buffer_bytes = slab_pool_peak(&capture->pool),
		.faults = capture->faults.latency,
		.queue = capture->faults.queue,
	};
	for (unsigned i = 0; i < capture->n_regions; i++)
		stats->pages_total += region_n_pages(&capture->regions[i]);
}

struct capture *capture_free(struct capture *capture)
{
	if (!capture)
		return NULL;

	/* First let the target go, then tidy up. */
	atomic_store(&capture->mode, MODE_RELEASE);
	end_waiting(capture);
	fault_thread_stop(capture);
	disarm(capture);
	close_fd(&capture->config.uffd);

	output_join(capture);
	for (unsigned i = 0; i < capture->n_regions; i++)
		region_deinit(&capture->regions[i]);
	free(capture->regions);
	free(capture->by_address);
	if (capture->has_pool)
		slab_pool_deinit(&capture->pool);
	free(capture);
	return NULL;
}
