/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/restore.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/clone_dir.h"
#include "flow/clone_disks.h"
#include "flow/convert.h"
#include "flow/imagewalk.h"
#include "image/reader.h"
#include "qemu/binary.h"
#include "qemu/clone.h"
#include "qemu/cmdline.h"
#include "qemu/detach.h"
#include "qemu/launch.h"
#include "qemu/optlist.h"

/* From here on a file can be RAM without being open for writing: "rom=off" of
 * memory-backend-file. */
static bool has_read_only_ram(const struct qemu_binary *binary)
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
			    has_read_only_ram(binary) ? CLONE_FILE_READ_ONLY
						      : CLONE_FILE_PRIVATE,
			    line);
		if (r != -ENOENT)
			return r == -EINVAL ? RESULT_USAGE : r;
		*eager = true;
	}
	return 0;
}

/* A path that means the same wherever QEMU runs; to be freed. */
static char *make_absolute(const char *cwd, const char *path)
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
	_cleanup_free_ char *full = make_absolute(NULL, path), *text = NULL;
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

/*
 * The QEMU to run: one that PATH has, or by its path, which is asked for its
 * version here and run in another directory.
 */
static int choose_program(const struct restore_options *options,
			  const struct image *image, struct cmdline *line)
{
	const char *program =
		options->program ? options->program : line->program;
	bool recorded = !options->program && !options->argv;
	char *chosen;

	if (strchr(program, '/'))
		chosen = make_absolute(recorded ? image->machine.cwd : NULL,
				       program);
	else
		chosen = strdup(program);
	if (!chosen)
		return -ENOMEM;
	free(line->program);
	line->program = chosen;
	return 0;
}

/* The command line of the new VM, but for what launch_start() adds. */
static int make_cmdline(const struct restore_options *options,
			const struct image *image,
			const struct qemu_binary *binary, const char *dir,
			const char *path, struct cmdline *line, bool *eager)
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

/* Writes the stream while QEMU reads it. */
struct feeder {
	const struct image *image;
	bool with_ram;
	int fd;
	int result;
	pthread_t thread;
};

static int write_pipe(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct feeder *feeder = opaque;

	(void)at;
	/* EPIPE: QEMU ended, and has said why. */
	return io_write_full(feeder->fd, buf, len);
}

static void *feed(void *data)
{
	struct feeder *feeder = data;
	struct savevm_sink sink = { write_pipe, feeder };

	feeder->result = convert_stream(feeder->image, feeder->with_ram, &sink);
	close_fd(&feeder->fd);
	return NULL;
}

static int load(struct launch *launch, const char *program,
		const struct image *image, bool eager)
{
	_cleanup_free_ char *words = NULL;
	struct feeder feeder = {
		.image = image,
		.with_ram = eager,
		.fd = steal_fd(&launch->stream_fd),
	};
	int r;

	r = -pthread_create(&feeder.thread, NULL, feed, &feeder);
	if (r) {
		close_fd(&feeder.fd);
		return log_errno(r, "cannot start a thread: %m");
	}
	r = launch_wait(launch, !image->machine.running);
	words = steal_ptr(launch->last_words);
	/* A VM that did not come up is killed, so that the thread ends. */
	if (r)
		launch_deinit(launch);
	pthread_join(feeder.thread, NULL);
	/* Positive: an image that could not be read, which has been said. */
	if (feeder.result > 0)
		return feeder.result;
	if (r == -EINTR || (r && feeder.result == -EINTR))
		return log_errno(-EINTR, "interrupted; the VM was ended");
	if (r == -ECONNABORTED)
		log_error("%s did not take the image: %s", program, words);
	return r ? r : feeder.result;
}

static int fill_command(const char *path, struct cmdline *line,
			struct restore_report *report)
{
	_cleanup_free_ char *quoted = cmdline_quote(path);

	if (!quoted)
		return -ENOMEM;
	/* What reads the stream when the line is run by hand. */
	cmdline_add_format(line, "incoming",
			   "exec:snapuffd convert %s --to %s --out -", quoted,
			   report->eager ? "qemu" : "devices");
	report->command = cmdline_print(line);
	cmdline_remove_all(line, "incoming");
	return report->command ? 0 : -ENOMEM;
}

static int start(const struct image *image, const struct qemu_binary *binary,
		 const struct restore_options *options, struct cmdline *line,
		 struct clone_dir *dir, struct restore_report *report)
{
	_cleanup_launch_ struct launch launch = LAUNCH_INIT;
	_cleanup_free_ char *log = NULL;
	struct launch_options how = {
		.cwd = options->argv ? NULL : image->machine.cwd,
		.deny_punching = !report->eager && !has_read_only_ram(binary),
		.keep_fds = options->argv,
	};
	bool had_qmp;
	int r;

	if (asprintf(&log, "%s/qemu.log", dir->path) < 0)
		return -ENOMEM;
	how.log = log;
	had_qmp = options->qmp && !access(options->qmp, F_OK);
	r = launch_start(&launch, line, &how);
	if (!r)
		r = load(&launch, line->program, image, report->eager);
	if (r) {
		launch_deinit(&launch);
		if (options->qmp && !had_qmp)
			unlink(options->qmp);
		return r;
	}
	report->started_ns = now_ns() - launch.started_ns;
	report->running = image->machine.running;
	report->pid = launch.pid;
	report->dir = strdup(dir->path);
	if (!report->dir)
		return -ENOMEM;
	launch_leave(&launch);
	clone_dir_keep(dir);
	return 0;
}

static int check_image(const struct image *image)
{
	if (image->inventory.kind == IMAGE_KIND_QEMU)
		return 0;
	log_error(
		"%s: is the image of a process, not of a QEMU; a process cannot be restored",
		image->path);
	return RESULT_FAILED;
}

int flow_restore(const struct restore_options *options,
		 struct restore_report *report)
{
	_cleanup_image_ struct image *image = NULL;
	_cleanup_qemu_binary_ struct qemu_binary binary = {};
	_cleanup_cmdline_ struct cmdline line = {};
	_cleanup_clone_dir_ struct clone_dir dir = {};
	_cleanup_free_ char *path = NULL;
	int r;

	*report = (struct restore_report){};
	r = image_open(&image, options->image);
	if (!r)
		r = check_image(image);
	if (r)
		return r;
	path = realpath(image->path, NULL);
	if (!path)
		return log_errno(-errno, "%s: %m", image->path);
	r = options->argv ? cmdline_init(&line, options->argv, options->n_args)
			  : cmdline_init(&line, image->machine.argv,
					 image->machine.n_args);
	if (r == -EINVAL) {
		log_error(
			"%s: the command line ends in an option without its value",
			options->argv ? "restore" : image->path);
		return options->argv ? RESULT_USAGE : RESULT_FAILED;
	}
	if (!r)
		r = choose_program(options, image, &line);
	if (!r)
		r = qemu_binary_init(&binary, line.program);
	if (!r)
		r = clone_dir_init(&dir, options->dir, options->print);
	if (!r)
		r = make_cmdline(options, image, &binary, dir.path, path, &line,
				 &report->eager);
	if (!r)
		r = fill_command(path, &line, report);
	if (r)
		return r;
	if (options->print) {
		if (!report->eager && !has_read_only_ram(&binary))
			log_warning(
				"QEMU before 8.2, run by hand, punches holes into the image when a balloon inflates; restore keeps it from that");
		return 0;
	}
	return start(image, &binary, options, &line, &dir, report);
}

void restore_report_deinit(struct restore_report *report)
{
	free(report->dir);
	free(report->command);
	*report = (struct restore_report){};
}
