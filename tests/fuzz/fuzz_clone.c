/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "flow/clone_cmdline.h"
#include "image/reader.h"
#include "qemu/clone.h"

#define RAM_LEN (128 * MIB)
#define N_ARGS	64

/*
 * What restore makes of the command line of a VM: the input's lines are its
 * arguments. Nothing is run, and no disk is looked at.
 */
static size_t split(char *text, char **argv)
{
	size_t n = 0;

	for (char *next; text && n < N_ARGS; text = next) {
		next = strchr(text, '\n');
		if (next)
			*next++ = '\0';
		argv[n++] = text;
	}
	return n;
}

static void make_ram(void)
{
	static bool made;
	int fd;

	if (made)
		return;
	made = true;
	fd = openat(fuzz_dir(), "pc.ram.pages", O_WRONLY | O_CREAT | O_CLOEXEC,
		    0600);
	fuzz_require(fd >= 0 && !ftruncate(fd, (off_t)RAM_LEN));
	close(fd);
}

static void clone(const struct image *image, struct cmdline *line)
{
	const struct restore_options options = {
		.print = true,
		.disks_as_is = true,
		.qmp = "/run/q,mp",
	};
	struct qemu_binary binary = {
		.program = (char *)"qemu",
		.major = 8,
		.minor = 2,
		.machines = (char *)"Supported machines are:\n"
				    "pc  PC (alias of pc-i440fx-7.2)\n"
				    "pc-i440fx-7.2  PC (default)\n",
	};
	_cleanup_free_ char *printed = NULL, *file = NULL;
	_cleanup_free_ char **argv = NULL;
	bool eager;
	size_t i = 0;

	clone_replace_disk(line, "/", "/disk.qcow2", "/o,verlay.qcow2");
	if (clone_next_disk(line, &i, &file) > 0)
		fuzz_require(file);
	if (clone_cmdline(&options, image, &binary, "/run/clone", "/image",
			  line, &eager))
		return;
	argv = cmdline_to_argv(line);
	printed = cmdline_print(line);
	fuzz_require(argv && printed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct fuzz_part part = { data, len };
	char *text = fuzz_string(part), *argv[N_ARGS];
	struct image_region region = {
		.name = (char *)"pc.ram",
		.length = RAM_LEN,
		.pages_file = (char *)"pc.ram.pages",
	};
	struct image_ram_block block = {
		.idstr = (char *)"pc.ram",
		.used_length = RAM_LEN,
		.max_length = RAM_LEN,
		.migratable = true,
	};
	struct image_memory_device dimm = {
		.id = (char *)"",
		.memdev = (char *)"mem1",
		.slot = -1,
	};
	struct image image = {
		.path = (char *)"image",
		.dir_fd = fuzz_dir(),
		.regions = &region,
		.n_regions = 1,
		.machine = {
			.qemu_version = (char *)"7.2.0",
			.machine_class = (char *)"pc-i440fx-7.2",
			.blocks = &block,
			.n_blocks = 1,
			.memory_devices = &dimm,
			.n_memory_devices = 1,
			.argv = argv,
			.n_args = split(text, argv),
		},
	};
	struct cmdline line;

	make_ram();
	if (!cmdline_init(&line, argv, image.machine.n_args))
		clone(&image, &line);
	cmdline_deinit(&line);
	free(text);
	return 0;
}
