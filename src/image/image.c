/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/image.h"

#include <stdlib.h>

void image_region_deinit(struct image_region *region)
{
	free(region->name);
	free(region->file);
	free(region->pages_file);
	free(region->runs);
	*region = (struct image_region){};
}

void image_machine_deinit(struct image_machine *machine)
{
	free(machine->qemu_version);
	free(machine->machine_class);
	free(machine->cwd);
	free(machine->domain_xml);
	for (size_t i = 0; i < machine->n_args; i++)
		free(machine->argv[i]);
	free(machine->argv);
	for (size_t i = 0; i < machine->n_blocks; i++)
		free(machine->blocks[i].idstr);
	free(machine->blocks);
	for (size_t i = 0; i < machine->n_disks; i++) {
		free(machine->disks[i].file);
		free(machine->disks[i].device);
		free(machine->disks[i].node_name);
		free(machine->disks[i].format);
		free(machine->disks[i].overlay);
	}
	free(machine->disks);
	for (size_t i = 0; i < machine->n_memory_devices; i++) {
		free(machine->memory_devices[i].id);
		free(machine->memory_devices[i].memdev);
	}
	free(machine->memory_devices);
	*machine = (struct image_machine){};
}

void image_process_deinit(struct image_process *process)
{
	free(process->groups);
	free(process->name);
	free(process->exe);
	free(process->cwd);
	for (size_t i = 0; i < process->n_args; i++)
		free(process->argv[i]);
	free(process->argv);
	for (size_t i = 0; i < process->n_env; i++)
		free(process->env[i]);
	free(process->env);
	free(process->auxv);
	for (size_t i = 0; i < process->n_mappings; i++) {
		free(process->mappings[i].name);
		free(process->mappings[i].build_id);
	}
	free(process->mappings);
	for (size_t i = 0; i < process->n_threads; i++) {
		free(process->threads[i].name);
		free(process->threads[i].regs);
		free(process->threads[i].xstate);
		free(process->threads[i].siginfo);
	}
	free(process->threads);
	for (size_t i = 0; i < process->n_fds; i++)
		free(process->fds[i].path);
	free(process->fds);
	*process = (struct image_process){};
}

void image_frame_deinit(struct image_frame *frame)
{
	free(frame->head);
	free(frame->tail);
	*frame = (struct image_frame){};
}

void image_inventory_deinit(struct image_inventory *inventory)
{
	free(inventory->tool_version);
	free(inventory->host);
	free(inventory->kernel);
	for (size_t i = 0; i < inventory->n_unsafe; i++)
		free(inventory->unsafe[i]);
	free(inventory->unsafe);
	*inventory = (struct image_inventory){};
}
