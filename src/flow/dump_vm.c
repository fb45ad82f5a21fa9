/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/dump_vm.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "capture/capture.h"
#include "flow/connect.h"
#include "flow/destination.h"
#include "flow/freeze.h"
#include "flow/keeper.h"
#include "flow/machine.h"
#include "flow/ram.h"
#include "flow/setup.h"
#include "flow/storage.h"
#include "qemu/devstate.h"
#include "qemu/disks.h"
#include "qemu/ramscan.h"
#include "qemu/vm.h"
#include "sys/pagemap.h"
#include "sys/uffd.h"
#include "target/target.h"

#define GRANULE_DEFAULT (256 * KIB)

/* Refuses what could not be kept consistent, before anything is touched. */
static int check_vm(struct qmp *qmp, const struct target *target,
		    const struct ram *ram, const struct vm_status *status)
{
	_cleanup_vm_strings_ struct vm_strings reasons = {};
	int r = vm_check_state(status);

	if (!r)
		r = vm_list_blockers(qmp, &reasons);
	if (!r)
		r = vm_list_outside_writers(qmp, target->pid, &ram->maps,
					    &ram->blocks, &reasons);
	if (r || !reasons.n_items)
		return r;
	log_error("pid %d: %s%s", target->pid, reasons.items[0],
		  reasons.n_items > 1 ? " (and more: see snapuffd check --pid)"
				      : "");
	return RESULT_UNSUPPORTED;
}

static int init_uffd(const struct target *target, int uffd, uint64_t *features)
{
	int r = setup_choose_features(0, features);

	if (r)
		return r;
	r = uffd_init(uffd, *features);
	return r ? log_errno(r, "pid %d: userfaultfd: %m", target->pid) : 0;
}

static uint64_t choose_buffer(const struct dump_options *options,
			      const struct ram *ram)
{
	uint64_t all = 0;

	if (options->buffer_bytes)
		return options->buffer_bytes;
	for (size_t i = 0; i < ram->n_regions; i++)
		all += range_len(ram->regions[i].desc.range);
	return setup_choose_buffer(all);
}

static int make_capture(struct capture **out,
			const struct dump_options *options,
			const struct target *target, const struct ram *ram,
			struct keeper *keeper, int pagemap_fd,
			const struct capture_sink *sink)
{
	struct capture_space space = {
		.pid = target->pid,
		.pidfd = target->pidfd,
		.uffd = -1,
		.pagemap_fd = pagemap_fd,
		.mem_fd = -1,
	};
	struct capture_config config = {
		.buffer_bytes = choose_buffer(options, ram),
		.granule_bytes = options->granule_bytes ? options->granule_bytes
							: GRANULE_DEFAULT,
		.sink = *sink,
		.progress = options->progress,
		.progress_opaque = options->progress_opaque,
	};
	uint64_t features = 0;
	int r;

	r = keeper_take_uffd(keeper, &space.uffd);
	if (r)
		return r;
	r = init_uffd(target, space.uffd, &features);
	config.markers = features & UFFD_FEATURE_WP_UNPOPULATED;
	if (!r)
		r = capture_new(out, &config);
	if (r) {
		close_fd(&space.uffd);
		return r;
	}
	/* The only one, number 0. */
	r = capture_add_space(*out, &space);
	for (size_t i = 0; !r && i < ram->n_regions; i++)
		r = capture_add_region(*out, &ram->regions[i].desc);
	return r;
}

/* Memory that was plugged in, or resized, since it was looked at. */
static int check_ram_is_same(const struct target *target, const struct ram *ram)
{
	int r = ramscan_recheck(target->pid, &ram->blocks);

	return r == -ESTALE ? RESULT_INCONSISTENT : r;
}

/*
 * The instant: stops the VM, saves its devices, has its disks snapshot, closes
 * the last gaps in the protection, lets it run on. *pause_ns is from `stop` to
 * the answer to `cont`. Whatever makes QEMU work comes before the last step:
 * from then on it would wait for the capture if it wrote to guest memory.
 */
static int take_instant(const struct target *target, struct qmp *qmp,
			const struct ram *ram, struct keeper *keeper,
			struct capture *capture, struct devstate *devices,
			struct storage *storage, bool running,
			uint64_t *pause_ns)
{
	_cleanup_freeze_ struct freeze freeze = FREEZE_INIT;
	int r;

	r = freeze_begin(&freeze, qmp, keeper, running);
	if (!r)
		r = check_ram_is_same(target, ram);
	if (!r)
		r = devstate_save(devices);
	if (!r)
		r = storage_take(storage);
	if (!r)
		r = capture_rearm(capture);
	if (!r)
		r = freeze_end(&freeze, pause_ns);
	return r;
}

static struct destination *choose_destination(
	const struct dump_options *options)
{
	switch (options->format) {
	case DUMP_IMAGE:
		return destination_new_image(options->out, &options->writer);
	case DUMP_QEMU:
		return destination_new_stream(options->out,
					      options->writer.rate);
	case DUMP_CORE:
		break;
	}
	return NULL;
}

int dump_vm(const struct dump_options *options, struct image_stats *stats)
{
	_cleanup_target_ struct target target = TARGET_INIT;
	_cleanup_qmp_ struct qmp *qmp = NULL;
	_cleanup_ram_ struct ram ram = {};
	_cleanup_machine_ struct image_machine machine = {};
	_cleanup_keeper_ struct keeper keeper = KEEPER_INIT;
	_cleanup_destination_ struct destination *to = NULL;
	_cleanup_close_ int pagemap_fd = -1;
	_cleanup_devstate_ struct devstate devices = DEVSTATE_INIT;
	_cleanup_storage_ struct storage storage = STORAGE_INIT;
	_cleanup_capture_ struct capture *capture = NULL;
	struct snapshot snapshot = {
		.target = &target,
		.ram = &ram,
		.machine = &machine,
		.devices = &devices,
		.started_unix_ns = setup_unix_ns(),
		.started_ns = now_ns(),
	};
	struct vm_status status;
	uint64_t thawed_ns;
	int r;

	*stats = (struct image_stats){};

	/* Find and probe: nothing is touched. */
	r = target_open(&target, options->pid);
	if (!r)
		r = connect_vm(&target, options->qmp, &qmp);
	if (!r)
		r = vm_query_status(qmp, &status);
	if (!r)
		r = ram_init(&ram, &target, qmp);
	if (!r)
		r = check_vm(qmp, &target, &ram, &status);
	if (!r)
		r = storage_init(&storage, &options->storage, &target, qmp);
	if (!r)
		r = machine_gather(&machine, &target, qmp, &ram,
				   status.running);
	if (r)
		return r;
	pagemap_fd = pagemap_open(target.proc_fd);
	if (pagemap_fd < 0)
		return log_errno(pagemap_fd, "pid %d: /proc/%d/pagemap: %m",
				 target.pid, target.pid);

	to = choose_destination(options);
	if (!to)
		return -ENOMEM;
	r = to->begin(to, &snapshot);
	if (r)
		return r;

	/* Infect, arm; the VM runs. */
	r = keeper_start(&keeper, &target, qmp_fd(qmp), -1);
	if (!r)
		r = storage_arm(&storage, &options->storage, &target,
				options->out, options->qmp);
	if (!r)
		r = make_capture(&capture, options, &target, &ram, &keeper,
				 pagemap_fd, &to->sink);
	if (!r)
		r = setup_drop_capabilities(NULL, 0);
	if (!r)
		r = capture_arm(capture);
	if (!r)
		r = devstate_prepare(&devices, qmp);
	if (!r)
		r = storage_prepare(&storage);
	if (r)
		return r;
	disks_sync(target.proc_fd, &ram.maps);
	r = capture_settle(capture);
	if (r)
		return r;

	snapshot.frozen_unix_ns = setup_unix_ns();
	r = take_instant(&target, qmp, &ram, &keeper, capture, &devices,
			 &storage, status.running, &stats->pause_ns);
	if (r)
		return r;

	/* The VM runs on; its memory is captured behind its back. */
	thawed_ns = now_ns();
	r = capture_run(capture);
	if (r)
		return r;
	stats->captured_ns = now_ns() - thawed_ns;
	r = devstate_finish(&devices);
	/* The target has given all that is needed of it. */
	if (!r)
		r = capture_drain(capture);
	if (!r)
		r = storage_describe(&storage, &machine);
	if (r)
		return r;

	setup_fill_stats(stats, capture);
	r = to->finish(to, &snapshot, stats);
	if (!r)
		storage_keep(&storage);
	return r;
}
