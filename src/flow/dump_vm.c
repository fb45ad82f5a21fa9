/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/dump_vm.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/inject.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "capture/capture.h"
#include "flow/admit.h"
#include "flow/connect.h"
#include "flow/destination.h"
#include "flow/freeze.h"
#include "flow/keeper.h"
#include "flow/machine.h"
#include "flow/ram.h"
#include "flow/setup.h"
#include "flow/storage.h"
#include "flow/vm_writers.h"
#include "flow/writers.h"
#include "qemu/devstate.h"
#include "qemu/disks.h"
#include "qemu/ramscan.h"
#include "qemu/vm.h"
#include "sys/heirs.h"
#include "sys/pagemap.h"
#include "sys/uffd.h"
#include "target/target.h"
#include "target/tracer.h"

#define GRANULE_DEFAULT (256 * KIB)

/* How long other writers may take to stop where no limit is given. */
#define OTHERS_MAX_NS NS_PER_S

/* Refuses what could not be kept consistent, before anything is touched. */
static int check_vm(struct qmp *qmp, const struct target *target,
		    const struct vm_status *status)
{
	_cleanup_vm_strings_ struct vm_strings reasons = {};
	int r = vm_check_state(status);

	if (!r)
		r = vm_list_blockers(qmp, &reasons);
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
	r = INJECT("vm-init-uffd") ?: uffd_init(uffd, *features);
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
			struct writers *writers,
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
		.watch = keeper->watch,
		.born = heirs_mark(),
	};
	uint64_t features = 0;
	int r;

	r = keeper_take_uffd(keeper, &space.uffd);
	if (r)
		return r;
	r = init_uffd(target, space.uffd, &features);
	config.markers = features & UFFD_FEATURE_WP_UNPOPULATED;
	if (!r)
		r = INJECT("vm-infect-done") ?: capture_new(out, &config);
	if (r) {
		close_fd(&space.uffd);
		return r;
	}
	/* The first one, number 0. */
	r = capture_add_space(*out, &space);
	for (size_t i = 0; !r && i < ram->n_regions; i++)
		r = capture_add_region(*out, &ram->regions[i].desc);
	if (!r)
		r = writers_infect(writers, *out, features);
	if (!r)
		r = writers_arm(writers, *out, false);
	return r ? r : capture_check_heirs(*out);
}

/* Memory that was plugged in, or resized, since it was looked at. */
static int check_ram_is_same(const struct target *target, const struct ram *ram)
{
	int r = ramscan_recheck(target->pid, &ram->blocks);

	return r == -ESTALE ? RESULT_INCONSISTENT : r;
}

/* Processes that write to the RAM, too. */
struct others {
	struct writers writers;
	struct tracer *tracer; /* NULL: there are none */
	uint64_t max_ns;       /* that they may stand */
	bool watch;	       /* that nobody else comes */
};

static void others_deinit(struct others *others)
{
	others->tracer = tracer_free(others->tracer);
	writers_deinit(&others->writers);
}

#define _cleanup_others_ _cleanup_(others_deinit)

static int trace_others(struct others *others)
{
	int r;

	if (!others->writers.n_writers)
		return 0;
	r = tracer_start(&others->tracer, NULL);
	return r ? r : writers_add_to_tracer(&others->writers, others->tracer);
}

static int look_for_others(const struct others *others)
{
	return others->watch ? writers_look(&others->writers) : 0;
}

/*
 * Closes the last gaps, while the others stand, too. A backend is needed for
 * `stop`, for the devices' state and for `cont`, so it stands for no longer: of
 * a VM that stands already, nothing changes meanwhile but what it writes.
 */
static int rearm(struct capture *capture, struct others *others)
{
	uint64_t since_ns;
	int r, thawed;

	if (!others->tracer)
		return capture_rearm(capture);
	r = tracer_freeze(others->tracer, others->max_ns, others->max_ns,
			  &since_ns);
	INJECT_INTO(r, "others-freeze-done");
	if (!r)
		r = writers_take(&others->writers);
	if (!r)
		r = capture_rearm(capture);
	thawed = tracer_thaw(others->tracer);
	return r ? r : thawed;
}

/* A command has a limit of its own, and no share in that of the rest. */
static int take_storage(struct freeze *freeze, struct storage *storage)
{
	const struct hook *hook = &storage->hook;
	int r;

	freeze_excuse(freeze, hook->pid > 0 ? hook->timeout_s * NS_PER_S : 0);
	r = storage_take(storage);
	freeze_go_on(freeze, hook->took_ns);
	return r;
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
			struct storage *storage, struct others *others,
			bool running, uint64_t max_ns, uint64_t *pause_ns)
{
	_cleanup_freeze_ struct freeze freeze = {
		.qmp = qmp,
		.keeper = keeper,
		.watch = keeper->watch,
		.pid = target->pid,
		.max_ns = max_ns,
	};
	int r;

	r = freeze_begin(&freeze, running);
	if (!r)
		r = INJECT("vm-recheck") ?: check_ram_is_same(target, ram);
	if (!r)
		r = freeze_check(&freeze);
	if (!r)
		r = devstate_save(devices);
	if (!r)
		r = freeze_check(&freeze);
	if (!r)
		r = take_storage(&freeze, storage);
	if (!r)
		r = freeze_check(&freeze);
	if (!r)
		r = rearm(capture, others);
	if (!r)
		r = freeze_check(&freeze);
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

int dump_vm(const struct dump_options *options, struct watch *watch,
	    struct dump_report *report)
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
	_cleanup_others_ struct others others = {
		.max_ns = options->max_pause_ns ?: OTHERS_MAX_NS,
		.watch = !options->unsafe,
	};
	_cleanup_capture_ struct capture *capture = NULL;
	struct image_stats *stats = &report->stats;
	struct snapshot snapshot = {
		.target = &target,
		.ram = &ram,
		.machine = &machine,
		.devices = &devices,
		.unsafe = &report->unsafe,
		.started_unix_ns = setup_unix_ns(),
		.started_ns = now_ns(),
	};
	struct keeper_charge charge = { .is_courier = options->courier,
					.qmp_path = options->qmp,
					.freeze_fd = -1,
					.watch = watch };
	struct vm_status status;
	uint64_t thawed_ns;
	int r;

	/* Find and probe: nothing is touched. */
	r = target_open(&target, options->pid);
	if (!r)
		r = admit(&target, false);
	if (!r)
		r = connect_vm(&target, options->qmp, options->courier, &qmp);
	if (!r)
		r = vm_query_status(qmp, &status);
	if (!r)
		r = INJECT("vm-probe-ram") ?: ram_init(&ram, &target, qmp);
	if (!r)
		r = check_vm(qmp, &target, &status);
	if (!r)
		r = vm_writers_judge(options, &target, qmp, &ram,
				     &others.writers, &report->unsafe);
	if (!r)
		r = storage_init(&storage, &options->storage, &target, qmp);
	if (!r)
		r = machine_gather(&machine, &target, qmp, &ram,
				   status.running);
	if (!r && options->courier)
		machine.domain_xml = steal_ptr(options->courier->xml);
	if (!r)
		r = setup_check_kernel();
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
	charge.qmp_fd = qmp_fd(qmp);
	r = keeper_start(&keeper, &target, &charge);
	if (!r)
		r = storage_arm(&storage, &options->storage, &target,
				options->out, options->qmp);
	if (!r)
		r = make_capture(&capture, options, &target, &ram, &keeper,
				 pagemap_fd, &others.writers, &to->sink);
	if (!r)
		r = setup_drop_capabilities(NULL, 0);
	if (!r)
		r = trace_others(&others);
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
	if (!r)
		r = look_for_others(&others);
	INJECT_INTO(r, "vm-settle-done");
	if (r)
		return r;

	snapshot.frozen_unix_ns = setup_unix_ns();
	r = take_instant(&target, qmp, &ram, &keeper, capture, &devices,
			 &storage, &others, status.running,
			 options->max_pause_ns, &stats->pause_ns);
	if (r)
		return r;

	/* The VM runs on; its memory is captured behind its back. */
	thawed_ns = now_ns();
	r = capture_run(capture);
	if (!r)
		r = look_for_others(&others);
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
