/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/storage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/inject.h"
#include "base/log.h"

int storage_init(struct storage *storage, const struct storage_options *options,
		 const struct target *target, struct qmp *qmp)
{
	int r;

	*storage = STORAGE_INIT;
	r = disks_query(qmp, &storage->disks);
	INJECT_INTO(r, "disks-query-done");
	if (!r)
		r = disks_open(&storage->disks, target->proc_fd);
	if (!r && options->overlay)
		r = overlays_plan(&storage->overlays, qmp, target->pid,
				  target->proc_fd, &storage->disks,
				  options->overlay_dir);
	return r;
}

/* The files and devices, a line each, without an end of line. */
static char *list_files(const struct disks *disks)
{
	char *list = strdup("");

	for (size_t i = 0; list && i < disks->n_disks; i++) {
		const struct disk *disk = &disks->disks[i];
		char *longer;

		if (disk->fd < 0)
			continue;
		if (asprintf(&longer, "%s%s%s", list, *list ? "\n" : "",
			     disk->file) < 0)
			longer = NULL;
		free(list);
		list = longer;
	}
	return list;
}

int storage_arm(struct storage *storage, const struct storage_options *options,
		const struct target *target, const char *out,
		const char *qmp_path)
{
	_cleanup_free_ char *files = list_files(&storage->disks);
	char pid[16];
	const struct hook_env env[] = {
		{ "SNAPUFFD_PID", pid },
		{ "SNAPUFFD_OUT", out },
		{ "SNAPUFFD_QMP", qmp_path },
		{ "SNAPUFFD_DISKS", files },
		{},
	};

	if (!files)
		return log_errno(-ENOMEM, "pid %d: --exec-frozen: %m",
				 target->pid);
	snprintf(pid, sizeof(pid), "%d", target->pid);
	return hook_start(&storage->hook, options->command,
			  options->command_timeout_s, target->pid, env);
}

int storage_prepare(struct storage *storage)
{
	return overlays_create(&storage->overlays);
}

/* The command first: when it fails, the disks are still what they were. */
int storage_take(struct storage *storage)
{
	int r = hook_run(&storage->hook);

	INJECT_INTO(r, "hook-done");
	if (!r)
		r = overlays_switch(&storage->overlays);
	INJECT_INTO(r, "overlay-switch-done");
	/* Last, for the base is written to once more: its caches. */
	if (!r)
		disks_look(&storage->disks);
	return r;
}

static const char *overlay_of(const struct storage *storage,
			      const struct disk *disk)
{
	for (size_t i = 0; i < storage->overlays.n_overlays; i++)
		if (storage->overlays.overlays[i].disk == disk)
			return storage->overlays.overlays[i].path;
	return NULL;
}

int storage_describe(const struct storage *storage,
		     struct image_machine *machine)
{
	const struct disks *disks = &storage->disks;

	machine->disks = calloc(disks->n_disks + 1, sizeof(*machine->disks));
	if (!machine->disks)
		return log_errno(-ENOMEM, "disks: %m");
	for (size_t i = 0; i < disks->n_disks; i++) {
		const struct disk *disk = &disks->disks[i];
		const char *overlay = overlay_of(storage, disk);

		machine->disks[i] = (struct image_disk){
			.file = strdup(disk->file),
			.device = strdup(disk->device),
			.node_name = strdup(disk->node_name),
			.format = strdup(disk->format),
			.read_only = disk->read_only,
			.has_stat = disk->has_stat,
			.size = disk->size,
			.mtime_ns = disk->mtime_ns,
			.overlay = overlay ? strdup(overlay) : NULL,
		};
		machine->n_disks++;
		if (!machine->disks[i].file || !machine->disks[i].device ||
		    !machine->disks[i].node_name || !machine->disks[i].format ||
		    (overlay && !machine->disks[i].overlay))
			return log_errno(-ENOMEM, "disks: %m");
	}
	return 0;
}

void storage_keep(struct storage *storage)
{
	overlays_keep(&storage->overlays);
}

void storage_deinit(struct storage *storage)
{
	hook_stop(&storage->hook);
	overlays_deinit(&storage->overlays);
	disks_deinit(&storage->disks);
}
