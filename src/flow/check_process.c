/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/check_process.h"

#include <errno.h>
#include <inttypes.h>

#include "base/log.h"
#include "flow/subject.h"
#include "flow/writers.h"

static int add_sharer(void *opaque, pid_t pid, const char *name,
		      const struct proc_map *map)
{
	struct check_report *report = opaque;

	return vm_strings_add(
		&report->remarks,
		"process %d (%s) has %s mapped and may write to it; dump --writers auto holds that back",
		pid, name, map->path);
}

static int look_for_sharers(struct check_report *report,
			    const struct subject *s)
{
	_cleanup_writers_ struct writers writers = {};
	int r = subject_list_files(s, &writers, true);

	if (!r)
		r = writers_skip(&writers, &s->target.pid, 1);
	if (!r)
		r = writers_walk(&writers, 0, add_sharer, report);
	return r ? r : writers_list_dma(&s->target, &report->remarks);
}

static int look_at_memory(struct check_report *report, const struct subject *s)
{
	for (size_t i = 0; i < s->layout.maps.n_maps; i++) {
		const struct layout_item *item = &s->layout.items[i];
		const struct smap *smap = smaps_find(s->smaps, s->rules.n_smaps,
						     item->map->range.start);

		if (item->how == LAYOUT_CAPTURE)
			report->capture_bytes += item->held;
		if (item->how == LAYOUT_COPY && smap)
			report->copy_bytes += smap->anonymous;
		if (item->how == LAYOUT_CAPTURE && smap &&
		    smap->flags & SMAP_UFFD)
			return vm_strings_add(
				&report->obstacles,
				"another userfaultfd is registered on the memory at %#" PRIx64,
				item->map->range.start);
	}
	return 0;
}

int check_process(struct check_report *report, const struct target *target)
{
	struct mapped_files files = {};
	struct subject subject;
	int r = subject_open(&subject, target->pid, false, &files);

	if (!r) {
		report->n_threads = subject.target.status.n_threads;
		report->n_mappings = subject.layout.maps.n_maps;
		r = look_at_memory(report, &subject);
	}
	if (!r)
		r = look_for_sharers(report, &subject);
	subject_close(&subject);
	mapped_files_deinit(&files);
	return r;
}
