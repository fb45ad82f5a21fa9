/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "capture/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "sys/heirs.h"
#include "sys/pidfd.h"
#include "sys/procfs.h"
#include "sys/uffd.h"

/* Whoever holds it keeps the fault thread waiting, and must get on. */
static void init_lock(pthread_mutex_t *lock, int type)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, type);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

/* How long a target whose memory is gone may take to be gone itself. */
#define EXIT_TIMEOUT_MS 200

int capture_new(struct capture **out, const struct capture_config *config)
{
	struct capture *capture = calloc(1, sizeof(*capture));
	int r;

	if (!capture)
		return -ENOMEM;
	capture->config = *config;
	capture->faults.filler.reserved = true;
	capture->faults.filler.changes = true;
	capture->now.reserved = true;
	capture->scanner.looks_around = true;
	capture->scanner_aliases.looks_around = true;
	init_lock(&capture->layout, PTHREAD_MUTEX_RECURSIVE);
	init_lock(&capture->settle_lock, PTHREAD_MUTEX_DEFAULT);
	init_lock(&capture->now_lock, PTHREAD_MUTEX_DEFAULT);
	r = fault_thread_init(capture);
	capture->hole_fd = r ? -1 : filemap_open();
	if (capture->hole_fd < 0 && !r)
		r = log_errno(capture->hole_fd, "userfaultfd: %m");
	if (r) {
		capture_free(capture);
		return r;
	}
	*out = capture;
	return 0;
}

struct watch *capture_get_watch(const struct capture *capture)
{
	return capture->config.watch;
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

/* One that lives has other memory now. */
int capture_target_died(const struct space *space)
{
	if (pidfd_wait_exit(space->desc.pidfd, EXIT_TIMEOUT_MS) != -ETIMEDOUT)
		return log_errno(-ESRCH,
				 "pid %d: the target died during the dump",
				 space->desc.pid);
	log_error(
		"pid %d: executes another program than when the dump began; the snapshot is discarded",
		space->desc.pid);
	return RESULT_INCONSISTENT;
}

int capture_copy_failed(const struct region *region, struct range range,
			int error)
{
	pid_t pid = region->space->desc.pid;

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
		return capture_target_died(region->space);
	return log_errno(error, "pid %d: cannot read memory at %#llx: %m", pid,
			 (unsigned long long)range.start);
}

/* Whether a process that has exited is missed no more. */
static bool is_captured(struct capture *capture, const struct space *space)
{
	uint64_t at = 0, ignored;
	bool is_left = false;
	struct range range;
	struct region *region;

	pthread_mutex_lock(&capture->layout);
	while (!is_left &&
	       (region = space_next(space, &at, UINT64_MAX, &range)))
		is_left = move_find_lost(region, range, &ignored);
	pthread_mutex_unlock(&capture->layout);
	return !is_left;
}

int capture_check_alive(struct capture *capture, struct space *space)
{
	if (space->is_over || pidfd_is_alive(space->desc.pidfd))
		return 0;
	/* While it was alive somebody saw to that. */
	space->is_over = atomic_load(&capture->mode) == MODE_CAPTURE &&
			 is_captured(capture, space);
	return space->is_over ? 0 : capture_target_died(space);
}

static uint64_t n_by_faults(struct capture *capture)
{
	return atomic_load(&capture->faults.filler.n_pages) +
	       atomic_load(&capture->now.n_pages);
}

uint64_t capture_count(struct capture *capture)
{
	return n_by_faults(capture) + atomic_load(&capture->scanner.n_pages) +
	       atomic_load(&capture->scanner_aliases.n_pages);
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
		.pages_captured = capture_count(capture),
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
	for (unsigned i = 0; i < capture->n_spaces; i++) {
		int r = capture_check_alive(capture, capture->spaces[i]);

		if (r)
			return capture_fail(capture, r);
	}
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

/* What capture_range_now() owns is captured once it returns. */
static int wait_for_now(struct capture *capture)
{
	int r = 0;

	while (!r) {
		struct timespec until = capture_next_look();

		if (!pthread_mutex_timedlock(&capture->now_lock, &until)) {
			pthread_mutex_unlock(&capture->now_lock);
			return 0;
		}
		r = capture_look_around(capture);
	}
	return r;
}

int capture_run(struct capture *capture)
{
	int r;

	capture->started_ns = capture->reported_ns = now_ns();
	for (unsigned i = 0; i < capture->n_regions; i++)
		capture->n_populated +=
			bitmap_count(&capture->regions[i]->populated, 0,
				     region_n_pages(capture->regions[i]));
	r = scan_all(capture);
	INJECT_INTO(r, "scan-done");
	if (!r)
		r = wait_for_now(capture);
	if (r)
		return capture_fail(capture, r);
	atomic_store(&capture->all_taken, true);
	/* What the fault thread owns is captured once it answers. */
	fault_thread_sync(capture);
	r = atomic_load(&capture->verdict);
	if (r)
		return r;
	r = copy_settle_all(capture);
	if (r)
		return capture_fail(capture, r);
	atomic_store(&capture->mode, MODE_RELEASE);
	return 0;
}

int capture_check_heirs(const struct capture *capture)
{
	_cleanup_free_ int *uffds = calloc(capture->n_spaces + 1, sizeof(int));
	pid_t heir = 0;
	int r = 0;

	if (!uffds)
		return -ENOMEM;
	for (unsigned i = 0; i < capture->n_spaces; i++)
		uffds[i] = capture->spaces[i]->desc.uffd;
	r = heirs_find(uffds, capture->n_spaces, &capture->config.born, &heir);
	INJECT_INTO(r, "arm-heirs");
	if (r < 0)
		return log_errno(r, "/proc: looking for children: %m");
	if (!r)
		return 0;
	log_warning("pid %d: was forked in the wrong moment, and has inherited "
		    "the userfaultfd of its parent",
		    heir);
	return RESULT_INCONSISTENT;
}

static void unregister_region(const struct region *region)
{
	struct range rest = region->desc.range;
	struct region_part part;

	while (region_next_part(region, &rest, &part))
		uffd_unregister(
			region->space->desc.uffd,
			(struct range){ part.addr,
					part.addr + range_len(part.range) });
}

/* The first mapping that ends behind `addr`. */
static size_t first_behind(const struct proc_maps *maps, uint64_t addr)
{
	size_t low = 0, high = maps->n_maps;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (maps->maps[middle].range.end <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Of a process whole mappings are registered, and must go as they are: a part
 * would split one. For one that has gone already that does nothing. */
static void unregister_mappings(const struct capture *capture,
				const struct space *space)
{
	_cleanup_close_ int proc_fd = procfs_open(space->desc.pid);
	struct proc_maps maps = {};

	if (proc_fd < 0 || procfs_read_maps(proc_fd, &maps))
		return;
	for (unsigned k = 0; k < capture->n_regions; k++) {
		const struct region *region = capture->regions[k];
		struct range rest = region->desc.range;
		struct region_part part;

		while (region->space == space &&
		       region_next_part(region, &rest, &part)) {
			uint64_t end = part.addr + range_len(part.range);

			for (size_t i = first_behind(&maps, part.addr);
			     i < maps.n_maps && maps.maps[i].range.start < end;
			     i++)
				uffd_unregister(space->desc.uffd,
						maps.maps[i].range);
		}
	}
	proc_maps_deinit(&maps);
}

/*
 * All protection goes; who waits in it runs on. The target may be dead. Closing
 * the descriptor does it all at once; but not if a child has inherited it, by a
 * fork while it was in the target.
 */
static void disarm(struct capture *capture)
{
	for (unsigned i = 0; i < capture->n_regions; i++) {
		struct region *region = capture->regions[i];

		if (region->registered && !capture->config.registered_by_caller)
			unregister_region(region);
		region->registered = false;
	}
	for (unsigned i = 0; i < capture->n_spaces; i++) {
		struct space *space = capture->spaces[i];

		if (capture->config.registered_by_caller &&
		    space->desc.uffd >= 0)
			unregister_mappings(capture, space);
		close_fd(&space->info_fd);
		close_fd(&space->desc.uffd);
	}
	watch_end(capture->config.watch, WATCH_FAULTS);
}

int capture_drain(struct capture *capture)
{
	INJECT_HERE("drain");
	fault_thread_stop(capture);
	disarm(capture);
	INJECT_HERE("drain-disarm-done");
	slab_pool_close(&capture->pool);
	output_join(capture);
	return atomic_load(&capture->verdict);
}

void capture_get_stats(struct capture *capture, struct capture_stats *stats)
{
	*stats = (struct capture_stats){
		.pages_total = capture->n_total,
		.pages_fault = n_by_faults(capture),
		.pages_copied = capture_count(capture),
		.noted_pages = capture->n_noted,
		.rearmed_pages = capture->n_rearmed,
		.peak_buffer_bytes = slab_pool_peak(&capture->pool),
		.faults = capture->faults.latency,
		.queue = capture->faults.queue,
	};
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

	output_join(capture);
	layout_deinit(capture);
	close_fd(&capture->hole_fd);
	fault_thread_deinit(capture);
	if (capture->has_pool)
		slab_pool_deinit(&capture->pool);
	pthread_mutex_destroy(&capture->layout);
	pthread_mutex_destroy(&capture->settle_lock);
	pthread_mutex_destroy(&capture->now_lock);
	free(capture);
	return NULL;
}
