/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/machine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "qemu/vm.h"

static char *version_text(const struct qmp_version *version)
{
	char *text;

	if (asprintf(&text, "%d.%d.%d%s%s", version->major, version->minor,
		     version->micro, *version->package ? " " : "",
		     version->package) < 0)
		return NULL;
	return text;
}

static int add_blocks(struct image_machine *machine, const struct ram *ram)
{
	const struct ram_blocks *blocks = &ram->blocks;

	machine->blocks =
		calloc(blocks->n_blocks + 1, sizeof(*machine->blocks));
	if (!machine->blocks)
		return -ENOMEM;
	for (size_t i = 0; i < blocks->n_blocks; i++) {
		const struct ram_block *block = &blocks->blocks[i];

		machine->blocks[i] = (struct image_ram_block){
			.idstr = strdup(block->name),
			.offset = block->offset,
			.used_length = block->used_length,
			.max_length = block->max_length,
			.page_size = block->page_size,
			.shared = block->shared,
			.resizeable = block->resizeable,
			.migratable = block->migratable,
			.region = -1,
		};
		machine->n_blocks++;
		if (!machine->blocks[i].idstr)
			return -ENOMEM;
	}
	for (size_t i = 0; i < ram->n_regions; i++)
		machine->blocks[ram->regions[i].block].region = (int)i;
	return 0;
}

/* MemoryDeviceInfo of qapi/machine.json. Other kinds than DIMMs forbid a dump,
 * or hold nothing. */
static int take_dimm(json_t *info, struct image_memory_device *dimm)
{
	json_t *data = json_object_get(info, "data");
	const char *id = json_string_value(json_object_get(data, "id"));
	const char *memdev = json_string_value(json_object_get(data, "memdev"));
	json_t *slot = json_object_get(data, "slot");

	if (!memdev)
		return log_errno(
			-EPROTO,
			"qmp: query-memory-devices: unexpected answer");
	/* "/objects/mem1": the id is all that the command line has. */
	if (strrchr(memdev, '/'))
		memdev = strrchr(memdev, '/') + 1;
	*dimm = (struct image_memory_device){
		.id = strdup(id ? id : ""),
		.memdev = strdup(memdev),
		.address = (uint64_t)json_integer_value(
			json_object_get(data, "addr")),
		.size = (uint64_t)json_integer_value(
			json_object_get(data, "size")),
		.slot = slot ? json_integer_value(slot) : -1,
		.node = json_integer_value(json_object_get(data, "node")),
	};
	return dimm->id && dimm->memdev ? 0 : -ENOMEM;
}

static int add_memory_devices(struct image_machine *machine, struct qmp *qmp)
{
	_cleanup_json_ json_t *result = NULL;
	json_t *info;
	size_t i;
	int r = qmp_call(qmp, "query-memory-devices", NULL, &result);

	if (r)
		return r;
	machine->memory_devices = calloc(json_array_size(result) + 1,
					 sizeof(*machine->memory_devices));
	if (!machine->memory_devices)
		return -ENOMEM;
	json_array_foreach(result, i, info)
	{
		const char *type =
			json_string_value(json_object_get(info, "type"));

		if (!type || strcmp(type, "dimm"))
			continue;
		r = take_dimm(
			info,
			&machine->memory_devices[machine->n_memory_devices++]);
		if (r)
			return r;
	}
	return 0;
}

static int add_command_line(struct image_machine *machine,
			    const struct target *target)
{
	_cleanup_free_ char **argv = NULL;
	size_t n;
	int r = procfs_read_argv(target->proc_fd, &argv, &n);

	if (!r)
		r = procfs_read_link(target->proc_fd, "cwd", &machine->cwd);
	if (r)
		return log_errno(r, "pid %d: reading its command line: %m",
				 target->pid);
	machine->argv = calloc(n + 1, sizeof(*machine->argv));
	if (!machine->argv)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		machine->argv[i] = strdup(argv[i]);
		if (!machine->argv[i])
			return -ENOMEM;
		machine->n_args++;
	}
	return 0;
}

int machine_gather(struct image_machine *machine, const struct target *target,
		   struct qmp *qmp, const struct ram *ram, bool running)
{
	int r;

	machine->running = running;
	machine->qemu_version = version_text(qmp_get_version(qmp));
	if (!machine->qemu_version)
		return -ENOMEM;
	r = vm_query_machine(qmp, &machine->machine_class);
	if (!r)
		r = add_command_line(machine, target);
	if (!r)
		r = add_blocks(machine, ram);
	return r ? r : add_memory_devices(machine, qmp);
}
