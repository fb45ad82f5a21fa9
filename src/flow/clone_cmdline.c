/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/clone_cmdline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/clone_disks.h"
#include "flow/imagewalk.h"
#include "qemu/clone.h"
#include "qemu/detach.h"
#include "qemu/optlist.h"

/* "rom=off" of memory-backend-file. */
bool clone_keeps_files(const struct qemu_binary *binary)
{
	return binary->major > 8 || (binary->major == 8 && binary->minor >= 2);
}

/* -machine memory-backend= */
static bool has_memory_backend(const struct qemu_binary *binary)
{
	return binary->major >= 5;
}

/* A command line of the caller's must be of the same machine. */
static int check_same_machine(const struct image *image,
			      const struct qemu_binary *binary,
			      const struct cmdline *line)
{
	const char *wanted = image->machine.machine_class;
	_cleanup_free_ char *name = NULL, *class = NULL;
	int r;

	name = clone_get_machine(line, &r);
	if (!r)
		r = qemu_binary_machine(binary, name, &class);
	if (r == -ENOENT) {
		log_error("-machine %s: %s has no such machine", name,
			  binary->program);
		return RESULT_USAGE;
	}
	if (r)
		return r == -EINVAL ? RESULT_USAGE : r;
	if (!strcmp(class, wanted))
		return 0;
	log_error("-machine %s: the image is of a %s, this is a %s",
		  name ? name : "(default)", wanted, class);
	return RESULT_USAGE;
}

static int check_same_memory(const struct image *image,
			     const struct cmdline *line)
{
	_cleanup_cmdline_ struct cmdline recorded = {};
	uint64_t wanted, given;
	int r;

	r = cmdline_init(&recorded, image->machine.argv, image->machine.n_args);
	if (r == -EINVAL)
		log_error(
			"%s: the command line ends in an option without its value",
			image->path);
	if (!r)
		r = clone_get_memory(&recorded, &wanted);
	if (r)
		return r == -EINVAL ? RESULT_FAILED : r;
	r = clone_get_memory(line, &given);
	if (r)
		return r == -EINVAL ? RESULT_USAGE : r;
	if (wanted == given)
		return 0;
	log_error("-m: the image is of a VM with %" PRIu64
		  " MiB, this has %" PRIu64 " MiB",
		  wanted / MIB, given / MIB);
	return RESULT_USAGE;
}

/* An alias would be another machine in another version; a machine that this
 * QEMU does not know is one of a newer QEMU. */
static int pin_machine(const struct image *image,
		       const struct qemu_binary *binary, struct cmdline *line)
{
	const struct image_machine *machine = &image->machine;
	_cleanup_free_ char *class = NULL;
	int r = qemu_binary_machine(binary, machine->machine_class, &class);

	if (r == -ENOENT) {
		log_error(
			"%s: the image is of QEMU %s with a %s, which %s (%d.%d.%d) does not have; name a newer one with --qemu",
			image->path, machine->qemu_version,
			machine->machine_class, binary->program, binary->major,
			binary->minor, binary->micro);
		return RESULT_FAILED;
	}
	return r ? r : clone_set_machine(line, machine->machine_class);
}

/* Plugs in again what is not on the command line, since it came later. */
static int plug_memory(const struct image *image, struct cmdline *line)
{
	const struct image_machine *machine = &image->machine;

	for (size_t i = 0; i < machine->n_memory_devices; i++) {
		const struct image_memory_device *dimm =
			&machine->memory_devices[i];
		char slot[32] = "";

		if (clone_has_id(line, dimm->memdev))
			continue;
		if (dimm->slot >= 0)
			snprintf(slot, sizeof(slot), ",slot=%" PRId64,
				 dimm->slot);
		cmdline_add_format(line, "object",
				   "memory-backend-ram,id=%s,size=%" PRIu64,
				   dimm->memdev, dimm->size);
		cmdline_add_format(line, "device",
				   "pc-dimm,memdev=%s,addr=%" PRIu64
				   ",node=%" PRId64 "%s%s%s",
				   dimm->memdev, dimm->address, dimm->node,
				   slot, *dimm->id ? ",id=" : "", dimm->id);
	}
	return cmdline_error(line);
}

/* Makes the image's pages the RAM. -ENOENT when that is not possible. */
static int map_ram(const struct image *image, const char *dir,
		   enum clone_file how, struct cmdline *line)
{
	const struct image_machine *machine = &image->machine;
	int r = 0;

	for (size_t i = 0; !r && i < machine->n_blocks; i++) {
		const struct image_ram_block *block = &machine->blocks[i];
		_cleanup_free_ char *path = NULL;

		_cleanup_close_ int fd = -1;

		if (!imagewalk_is_ram(block))
			continue;
		/* QEMU would make a file that is missing. */
		fd = image_open_pages(image, &image->regions[block->region]);
		if (fd < 0)
			return RESULT_FAILED;
		if (asprintf(&path, "%s/%s", dir,
			     image->regions[block->region].pages_file) < 0)
			return -ENOMEM;
		r = clone_back_ram(line, block->idstr, block->used_length, path,
				   how);
		if (r == -ENOENT)
			log_warning(
				"%s: RAM block %s is none of the command line's memory objects; all RAM is read before the VM runs",
				image->path, block->idstr);
	}
	return r;
}

/* How the RAM comes to the VM: *eager tells. */
static int choose_ram(const struct restore_options *options,
		      const struct image *image,
		      const struct qemu_binary *binary, const char *path,
		      struct cmdline *line, bool *eager)
{
	int r;

	/* First: blocks that are not mapped are loaded, where they must not be
	 * the first VM's. */
	r = clone_unshare_ram(line);
	if (r)
		return r == -EINVAL ? RESULT_USAGE : r;
	*eager = options->eager || !has_memory_backend(binary);
	if (!*eager) {
		r = map_ram(image, path,
			    clone_keeps_files(binary) ? CLONE_FILE_READ_ONLY
						      : CLONE_FILE_PRIVATE,
			    line);
		if (r != -ENOENT)
			return r == -EINVAL ? RESULT_USAGE : r;
		*eager = true;
	}
	return 0;
}

char *clone_absolute(const char *cwd, const char *path)
{
	_cleanup_free_ char *ours = cwd ? NULL : getcwd(NULL, 0);
	char *full;

	if (*path == '/')
		return strdup(path);
	if ((!cwd && !ours) ||
	    asprintf(&full, "%s/%s", cwd ? cwd : ours, path) < 0)
		return NULL;
	return full;
}

static int add_qmp(struct cmdline *line, const char *path)
{
	_cleanup_free_ char *full = clone_absolute(NULL, path), *text = NULL;
	_cleanup_optlist_ struct optlist list = {};

	if (!full || optlist_init(&list, "", NULL))
		return -ENOMEM;
	optlist_set_first(&list, full);
	optlist_set(&list, "server", "on");
	optlist_set(&list, "wait", "off");
	text = optlist_print(&list);
	if (!text)
		return -ENOMEM;
	cmdline_add_format(line, "qmp", "unix:%s", text);
	return cmdline_error(line);
}

int clone_cmdline(const struct restore_options *options,
		  const struct image *image, const struct qemu_binary *binary,
		  const char *dir, const char *path, struct cmdline *line,
		  bool *eager)
{
	int r;

	if (options->argv) {
		r = check_same_machine(image, binary, line);
		if (!r)
			r = check_same_memory(image, line);
		cmdline_remove_all(line, "incoming");
		cmdline_remove_all(line, "daemonize");
		cmdline_remove_all(line, "S");
	} else {
		r = detach_cmdline(line, dir);
		if (!r && !options->disks_as_is)
			r = clone_disks(image, options->changed_disks,
					options->print, dir, line);
	}
	if (!r)
		r = pin_machine(image, binary, line);
	if (!r)
		r = plug_memory(image, line);
	if (!r)
		r = choose_ram(options, image, binary, path, line, eager);
	if (r)
		return r == -EINVAL ? RESULT_FAILED : r;
	if (!image->machine.running)
		cmdline_add(line, "S", NULL);
	return options->qmp ? add_qmp(line, options->qmp) : cmdline_error(line);
}
