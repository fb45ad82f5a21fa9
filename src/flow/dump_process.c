/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/dump_process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/inject.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/admit.h"
#include "flow/cgroup_freeze.h"
#include "flow/file_writes.h"
#include "flow/process_images.h"
#include "flow/process_writers.h"
#include "flow/setup.h"
#include "flow/strays.h"
#include "flow/subject.h"
#include "flow/unsafe.h"
#include "flow/writers.h"
#include "sys/caps.h"
#include "sys/heirs.h"
#include "sys/pidlist.h"
#include "sys/procstat.h"
#include "sys/proctree.h"
#include "sys/rlimit.h"
#include "sys/sched.h"
#include "sys/uffd.h"

#define GRANULE_DEFAULT (256 * KIB)

/* Everything of one attempt. */
struct attempt {
	const struct dump_options *options;
	bool hold;    /* calls that take memory away */
	bool is_last; /* there will be no other */
	struct watch *watch;
	struct image_stats *stats;
	struct vm_strings *unsafe; /* what is accepted */
	struct writers writers;	   /* that are no subjects */
	struct subject *subjects;
	size_t n_subjects;
	struct mapped_files files;
	struct file_writes file_writes;
	struct process_images images;
	struct tracer *tracer;
	struct cgroup_freeze cgroup;
	struct capture *capture;
	uint64_t features;
	uint64_t n_bytes; /* to be captured, about */
	uint64_t started_ns, started_unix_ns, frozen_unix_ns;
	uint64_t started_tick_ns; /* procstat_now_ns() */
	size_t n_files_watched;	  /* of the writers', see watch_strays() */
};

static void attempt_deinit(struct attempt *a)
{
	/* First whoever stands or waits, then what they stood for. */
	tracer_free(a->tracer);
	cgroup_freeze_deinit(&a->cgroup);
	capture_free(a->capture);
	process_images_deinit(&a->images);
	for (size_t i = 0; i < a->n_subjects; i++)
		subject_close(&a->subjects[i]);
	free(a->subjects);
	writers_deinit(&a->writers);
	file_writes_deinit(&a->file_writes);
	mapped_files_deinit(&a->files);
}

#define _cleanup_attempt_ _cleanup_(attempt_deinit)

/* A process, or it and its descendants. */
static int list_root(const struct dump_options *options, pid_t root,
		     struct pid_list *list)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n;
	int r;

	if (!options->tree)
		return pid_list_append(list, root);
	r = proctree_list(root, &pids, &n);
	if (r == -ESRCH) {
		log_error("pid %d: no such process", root);
		return RESULT_UNSUPPORTED;
	}
	if (r)
		return log_errno(r, "pid %d: its descendants: %m", root);
	for (size_t i = 0; !r && i < n; i++)
		if (!pid_is_in(pids[i], list->pids, list->n))
			r = pid_list_append(list, pids[i]);
	return r;
}

static int list_processes(const struct dump_options *options, pid_t **pids,
			  size_t *n)
{
	struct pid_list list = {};
	int r = list_root(options, options->pid, &list);

	for (size_t i = 0; !r && i < options->n_also; i++)
		if (!pid_is_in(options->also[i], list.pids, list.n))
			r = list_root(options, options->also[i], &list);
	*pids = list.pids;
	*n = list.n;
	return r;
}

static bool is_root(const struct dump_options *options, pid_t pid)
{
	return pid == options->pid ||
	       pid_is_in(pid, options->also, options->n_also);
}

static bool is_subject(const struct attempt *a, pid_t pid)
{
	for (size_t i = 0; i < a->n_subjects; i++)
		if (a->subjects[i].target.pid == pid)
			return true;
	return false;
}

/* Find and probe: nothing is touched. */
static int open_subjects(struct attempt *a)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n;
	int r = list_processes(a->options, &pids, &n);

	if (r)
		return r;
	a->subjects = calloc(n, sizeof(*a->subjects));
	if (!a->subjects)
		return -ENOMEM;
	for (size_t i = 0; !r && i < n; i++) {
		struct subject *s = &a->subjects[a->n_subjects];

		r = subject_open(s, pids[i], a->options->all, &a->files);
		if (!r)
			r = admit(&s->target, true);
		/* A child that has ended by now, or whose pid is another's. */
		if (!is_root(a->options, pids[i]) &&
		    ((r && !procstat_is_alive(pids[i])) ||
		     (!r && !is_subject(a, s->process.ppid)))) {
			subject_close(s);
			r = 0;
			continue;
		}
		a->n_subjects++;
	}
	return r;
}

/* Nobody can be born while all stand; before that somebody may have been. */
static int check_tree(const struct attempt *a)
{
	_cleanup_free_ pid_t *pids = NULL;
	size_t n;
	int r;

	if (!a->options->tree)
		return 0;
	r = list_processes(a->options, &pids, &n);
	for (size_t i = 0; !r && i < n; i++)
		if (!is_subject(a, pids[i])) {
			log_warning("pid %d: was started meanwhile", pids[i]);
			r = RESULT_INCONSISTENT;
		}
	return r;
}

static int watch_writers(const struct attempt *a)
{
	return process_writers_are_strict(a->options)
		       ? writers_look(&a->writers)
		       : 0;
}

/* Where nobody at all may come, watch_writers() sees them, too. Started over
 * they are old, and so told of if they are still there. */
static int watch_strays(struct attempt *a)
{
	_cleanup_vm_strings_ struct vm_strings strays = {};
	int r;

	a->n_files_watched = a->writers.n_files;
	if (process_writers_are_strict(a->options))
		return 0;
	r = strays_find(&a->writers, a->started_tick_ns, &strays);
	if (r || !strays.n_items)
		return r;
	if (a->is_last)
		return unsafe_accept(a->options->pid, &strays, a->unsafe);
	log_warning("pid %d: %s", a->options->pid, strays.items[0]);
	return RESULT_INCONSISTENT;
}

static int make_capture(struct attempt *a)
{
	struct capture_config config = {
		.granule_bytes = a->options->granule_bytes
					 ? a->options->granule_bytes
					 : GRANULE_DEFAULT,
		.buffer_bytes = a->options->buffer_bytes,
		.mappings_change = true,
		.registered_by_caller = true,
		.sink = process_images_sink(&a->images),
		.progress = a->options->progress,
		.progress_opaque = a->options->progress_opaque,
		.watch = a->watch,
		.born = heirs_mark(),
	};
	int r = setup_choose_features(UFFD_FEATURE_EVENT_FORK, &a->features);

	if (r)
		return r;
	config.markers = a->features & UFFD_FEATURE_WP_UNPOPULATED;
	for (size_t i = 0; i < a->n_subjects; i++)
		a->n_bytes += subject_size(&a->subjects[i]);
	if (!config.buffer_bytes)
		config.buffer_bytes = setup_choose_buffer(a->n_bytes);
	r = INJECT("infect-begin") ?: capture_new(&a->capture, &config);
	if (!r)
		process_images_set_capture(&a->images, a->capture);
	return r;
}

/* For a thread of a process that is about to lose it. Whatever comes of it, the
 * capture knows; the thread goes on. */
static void capture_before_loss(void *opaque, unsigned process,
				struct range range)
{
	struct attempt *a = opaque;

	capture_range_now(a->capture, process, range);
}

static int start_tracer(struct attempt *a)
{
	struct tracer_holder holder = { capture_before_loss, a, a->watch };
	int r = tracer_start(&a->tracer, a->hold ? &holder : NULL);

	for (size_t i = 0; !r && i < a->n_subjects; i++)
		r = subject_add_to_tracer(&a->subjects[i], a->tracer);
	return r ? r : writers_add_to_tracer(&a->writers, a->tracer);
}

static int prepare_cgroup(struct attempt *a)
{
	_cleanup_free_ pid_t *pids = calloc(a->n_subjects, sizeof(*pids));

	if (!pids)
		return -ENOMEM;
	for (size_t i = 0; i < a->n_subjects; i++)
		pids[i] = a->subjects[i].target.pid;
	return cgroup_freeze_prepare(&a->cgroup, &a->subjects[0].target, pids,
				     a->n_subjects);
}

/* Still needed: to open what is mapped; and to suspend seccomp filters if there
 * will be another attempt. */
static int drop_capabilities(const struct attempt *a)
{
	const cap_value_t also[] = { CAP_CHECKPOINT_RESTORE, CAP_SYS_ADMIN };
	bool seccomp = false;

	for (size_t i = 0; i < a->n_subjects; i++)
		seccomp |= a->subjects[i].target.status.seccomp;
	return setup_drop_capabilities(also, seccomp && !a->is_last ? 2 : 1);
}

static int infect(struct attempt *a)
{
	int r = make_capture(a);

	/* Helpers are forked before there are threads. */
	if (!r && a->options->by_cgroup)
		r = prepare_cgroup(a);
	for (size_t i = 0; !r && i < a->n_subjects; i++)
		r = subject_infect(&a->subjects[i], a->capture, a->features);
	if (!r)
		r = writers_infect(&a->writers, a->capture, a->features);
	if (!r)
		r = drop_capabilities(a);
	return r ? r : start_tracer(a);
}

/* Whoever stops the processes bounds that by max_pause_ns himself, as long as
 * he runs. */
static void begin_pause(const struct attempt *a)
{
	if (a->watch)
		watch_begin_long(a->watch, WATCH_PAUSE,
				 max_u64(a->watch->max_ns,
					 a->options->max_pause_ns * 4 / 3));
}

/*
 * A first, short stop: mappings are registered whole, which costs little and
 * protects nothing yet.
 */
static int register_mappings(struct attempt *a)
{
	struct sched_before before = sched_raise();
	uint64_t since_ns;
	int r, thawed;

	begin_pause(a);
	r = tracer_freeze(a->tracer, a->options->max_pause_ns,
			  TRACER_PATIENCE_NS, &since_ns);
	for (size_t i = 0; !r && i < a->n_subjects; i++)
		r = subject_cover(&a->subjects[i], a->capture);
	if (!r)
		r = writers_arm(&a->writers, a->capture, true);
	INJECT_INTO(r, "cover-done");
	thawed = tracer_thaw(a->tracer);
	watch_end(a->watch, WATCH_PAUSE);
	a->stats->pause_ns = now_ns() - since_ns;
	sched_restore(&before);
	return r ? r : thawed;
}

/* The processes run; what they write is noted. */
static int arm(struct attempt *a)
{
	int r = capture_start(a->capture, a->n_bytes);

	if (!r)
		r = register_mappings(a);
	/* They all stood: who was being forked is there. */
	if (!r)
		r = capture_check_heirs(a->capture);
	if (!r)
		r = capture_arm(a->capture);
	for (size_t i = 0; !r && i < a->n_subjects; i++)
		r = subject_prepare(&a->subjects[i]);
	if (!r)
		r = process_writers_list(a->subjects, a->n_subjects,
					 &a->writers, true);
	if (!r)
		r = watch_strays(a);
	if (!r)
		r = capture_settle(a->capture);
	return r ? r : watch_writers(a);
}

static int took_too_long(const struct attempt *a)
{
	log_error(
		"pid %d: the pause would have been longer than %llu ms (--max-pause)",
		a->options->pid,
		(unsigned long long)(a->options->max_pause_ns / 1000000));
	return RESULT_FAILED;
}

/* All stand: looks at what there is to be captured, and closes the last gaps in
 * its protection. */
static int take_all(struct attempt *a)
{
	int r = INJECT("take-tree") ?: check_tree(a);

	for (size_t i = 0; !r && i < a->n_subjects; i++)
		r = subject_take(&a->subjects[i], a->capture);
	INJECT_INTO(r, "take-done");
	if (!r)
		r = file_writes_instant(&a->file_writes);
	/* What was mapped since the first look as well. */
	if (!r)
		r = process_writers_list(a->subjects, a->n_subjects,
					 &a->writers, true);
	if (!r && a->writers.n_files > a->n_files_watched)
		r = watch_strays(a);
	if (!r)
		r = writers_take(&a->writers);
	return r ? r : capture_rearm(a->capture);
}

/* The instant. Every thread stands, its registers are read; they run on. */
static int take_instant(struct attempt *a)
{
	struct sched_before before = sched_raise();
	uint64_t max_ns = a->options->max_pause_ns;
	uint64_t began_ns = now_ns(), since_ns = began_ns, stood_ns;
	int r = 0, thawed;

	a->frozen_unix_ns = setup_unix_ns();
	begin_pause(a);
	if (a->options->by_cgroup)
		r = cgroup_freeze_begin(&a->cgroup, max_ns);
	if (!r)
		r = tracer_freeze(a->tracer, max_ns,
				  a->options->by_cgroup ? max_ns
							: TRACER_PATIENCE_NS,
				  &since_ns);
	stood_ns = now_ns();
	if (!r)
		r = take_all(a);
	if (!r && interrupt_pending())
		r = -EINTR;
	if (!r && now_ns() - since_ns > max_ns)
		r = took_too_long(a);
	thawed = a->hold && !r ? tracer_thaw_holding(a->tracer)
			       : tracer_thaw(a->tracer);
	if (a->options->by_cgroup) {
		int ended = cgroup_freeze_end(&a->cgroup);

		thawed = thawed ? thawed : ended;
		since_ns = began_ns;
	}
	watch_end(a->watch, WATCH_PAUSE);
	a->stats->pause_ns += now_ns() - since_ns;
	sched_restore(&before);
	log_debug("pid %d: all stood after %llu us of the pause",
		  a->options->pid,
		  (unsigned long long)(stood_ns - since_ns) / 1000);
	return r ? r : thawed;
}

static bool is_captured(void *opaque, size_t file)
{
	const struct attempt *a = opaque;

	for (size_t i = 0; i < a->n_subjects; i++)
		if (subject_captures_file(&a->subjects[i], file))
			return true;
	return false;
}

/* What is known to have been written does not pass where nobody may. */
static int judge_file_writes(struct attempt *a)
{
	_cleanup_vm_strings_ struct vm_strings certain = {}, maybe = {};
	int r = file_writes_list(&a->file_writes, is_captured, a, &certain,
				 &maybe);

	if (!r && certain.n_items && process_writers_are_strict(a->options)) {
		log_error("pid %d: %s; the snapshot is discarded",
			  a->options->pid, certain.items[0]);
		return RESULT_INCONSISTENT;
	}
	if (!r)
		r = unsafe_accept(a->options->pid, &certain, a->unsafe);
	return r ? r : unsafe_accept(a->options->pid, &maybe, a->unsafe);
}

static int finish(struct attempt *a)
{
	struct image_stats *stats = a->stats;
	struct utsname host = {};
	struct image_inventory inventory = {
		.started_unix_ns = a->started_unix_ns,
		.frozen_unix_ns = a->frozen_unix_ns,
		.unsafe = a->unsafe->items,
		.n_unsafe = a->unsafe->n_items,
	};
	int r = 0;

	setup_fill_stats(stats, a->capture);
	r = INJECT("describe-threads");
	for (size_t i = 0; !r && i < a->n_subjects; i++)
		r = subject_describe(&a->subjects[i], a->tracer);
	INJECT_INTO(r, "describe-files");
	for (size_t i = 0; !r && i < a->n_subjects; i++)
		r = subject_put_rest(&a->subjects[i]);
	if (r)
		return r;
	if (interrupt_pending())
		return -EINTR;
	uname(&host);
	inventory.host = host.nodename;
	inventory.kernel = host.release;
	return process_images_commit(&a->images, &inventory, a->started_ns,
				     stats);
}

static int dump_once(const struct dump_options *options, struct watch *watch,
		     bool hold, bool is_last, struct dump_report *report)
{
	struct image_stats *stats = &report->stats;
	_cleanup_attempt_ struct attempt a = {
		.options = options,
		.hold = hold,
		.is_last = is_last,
		.watch = watch,
		.stats = stats,
		.unsafe = &report->unsafe,
		.cgroup = CGROUP_FREEZE_INIT,
		.images = PROCESS_IMAGES_INIT,
		.file_writes = FILE_WRITES_INIT,
		.started_ns = now_ns(),
		.started_unix_ns = setup_unix_ns(),
		.started_tick_ns = procstat_now_ns(),
	};
	uint64_t thawed_ns;
	int r;

	*stats = (struct image_stats){};
	vm_strings_deinit(&report->unsafe);
	r = open_subjects(&a);
	if (!r)
		r = process_writers_judge(options, a.subjects, a.n_subjects,
					  &a.writers, &report->unsafe);
	if (!r)
		r = setup_check_kernel();
	if (!r)
		r = file_writes_begin(&a.file_writes, &a.files);
	if (!r)
		r = process_images_begin(&a.images, options, a.subjects,
					 a.n_subjects);
	if (!r)
		r = infect(&a);
	if (!r)
		r = arm(&a);
	if (!r)
		r = take_instant(&a);
	if (r)
		return r;

	/* The processes run on; their memory is captured behind their backs. */
	thawed_ns = now_ns();
	r = capture_run(a.capture);
	tracer_let_go(a.tracer);
	stats->captured_ns = now_ns() - thawed_ns;
	if (!r)
		r = watch_writers(&a);
	if (!r)
		r = judge_file_writes(&a);
	if (!r)
		r = capture_drain(a.capture);
	return r ? r : finish(&a);
}

static bool roots_are_alive(const struct dump_options *options)
{
	bool all = procstat_is_alive(options->pid);

	for (size_t i = 0; i < options->n_also; i++)
		all = all && procstat_is_alive(options->also[i]);
	return all;
}

int dump_process(const struct dump_options *options, struct watch *watch,
		 struct dump_report *report)
{
	bool hold = options->hold == DUMP_HOLD_YES;
	int r;

	/* A descriptor for each file that is mapped. */
	rlimit_raise_files();
	for (unsigned i = 0;; i++) {
		r = dump_once(options, watch, hold, i >= options->retries,
			      report);
		/* One of a tree may end at any time. */
		if (r == -ESRCH && options->tree && roots_are_alive(options))
			r = RESULT_INCONSISTENT;
		/* -ETIME: threads that had no processor. */
		if ((r != RESULT_INCONSISTENT && r != -ETIME) ||
		    i >= options->retries)
			return r;
		log_warning("pid %d: trying again, %u of %u", options->pid,
			    i + 1, options->retries);
		hold = options->hold != DUMP_HOLD_NO;
	}
}
