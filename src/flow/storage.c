/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/storage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

int storage_init(struct storage *storage, const struct target *target,
		 struct qmp *qmp)
{
	int r;

	*storage = STORAGE_INIT;
	r = disks_query(qmp, &storage->disks);
	return r ? r : disks_open(&storage->disks, target->proc_fd);
}

int storage_take(struct storage *storage)
{
	disks_look(&storage->disks);
	return 0;
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

		machine->disks[i] = (struct image_disk){
			.file = strdup(disk->file),
			.device = strdup(disk->device),
			.node_name = strdup(disk->node_name),
			.format = strdup(disk->format),
			.read_only = disk->read_only,
			.has_stat = disk->has_stat,
			.size = disk->size,
			.mtime_ns = disk->mtime_ns,
		};
		machine->n_disks++;
		if (!machine->disks[i].file || !machine->disks[i].device ||
		    !machine->disks[i].node_name || !machine->disks[i].format)
			return log_errno(-ENOMEM, "disks: %m");
	}
	return 0;
}

void storage_deinit(struct storage *storage)
{
	disks_deinit(&storage->disks);
}
