/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/inspect_process.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/text.h"
#include "cmd/cmd.h"

static json_t *argv_to_json(const struct image_process *process)
{
	json_t *list = json_array();

	for (size_t i = 0; i < process->n_args; i++)
		json_array_append_new(list, text_to_json(process->argv[i]));
	return list;
}

static json_t *threads_to_json(const struct image_process *process)
{
	json_t *list = json_array();

	for (size_t i = 0; i < process->n_threads; i++) {
		const struct image_thread *thread = &process->threads[i];

		json_array_append_new(
			list, json_pack("{s:i, s:o}", "tid", (int)thread->tid,
					"name", text_to_json(thread->name)));
	}
	return list;
}

static json_t *fds_to_json(const struct image_process *process)
{
	json_t *list = json_array();

	for (size_t i = 0; i < process->n_fds; i++) {
		const struct image_fd *fd = &process->fds[i];

		json_array_append_new(list, json_pack("{s:i, s:o}", "fd",
						      fd->fd, "path",
						      text_to_json(fd->path)));
	}
	return list;
}

/* "0x7f0000000000": JSON's integers are signed, and vsyscall is at the top. */
static json_t *address_to_json(uint64_t address)
{
	char text[32];

	snprintf(text, sizeof(text), "%#" PRIx64, address);
	return json_string(text);
}

static json_t *mappings_to_json(const struct image_process *process)
{
	json_t *list = json_array();

	for (size_t i = 0; i < process->n_mappings; i++) {
		const struct image_mapping *map = &process->mappings[i];
		char prot[] = {
			map->prot & PROT_READ ? 'r' : '-',
			map->prot & PROT_WRITE ? 'w' : '-',
			map->prot & PROT_EXEC ? 'x' : '-',
			map->shared ? 's' : 'p',
			'\0',
		};

		json_array_append_new(
			list,
			json_pack("{s:o, s:o, s:s, s:o, s:I, s:s?}", "start",
				  address_to_json(map->start), "end",
				  address_to_json(map->end), "prot", prot,
				  "name", text_to_json(map->name), "held",
				  (json_int_t)map->held, "build_id",
				  map->build_id));
	}
	return list;
}

void process_to_json(json_t *object, const struct image_process *process)
{
	json_object_set_new(object, "process",
			    json_pack("{s:i, s:o, s:o, s:o, s:o, s:I, s:o}",
				      "pid", (int)process->pid, "name",
				      text_to_json(process->name), "exe",
				      text_to_json(process->exe), "argv",
				      argv_to_json(process), "threads",
				      threads_to_json(process), "n_mappings",
				      (json_int_t)process->n_mappings, "fds",
				      fds_to_json(process)));
	json_object_set_new(object, "mappings", mappings_to_json(process));
}

void process_print(const struct image_process *process)
{
	uint64_t held = 0;
	char size[32];

	for (size_t i = 0; i < process->n_mappings; i++)
		held += process->mappings[i].held;
	printf("process    %s, %s\n", text_make_printable(process->name),
	       text_make_printable(process->exe) ?: "?");
	printf("threads    %zu\n", process->n_threads);
	printf("mappings   %zu, held %s\n", process->n_mappings,
	       format_size(size, held));
}
