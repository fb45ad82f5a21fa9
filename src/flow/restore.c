/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "flow/restore.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "flow/clone_cmdline.h"
#include "flow/clone_dir.h"
#include "flow/confined.h"
#include "flow/convert.h"
#include "flow/image_summary.h"
#include "image/reader.h"
#include "qemu/binary.h"
#include "qemu/cmdline.h"
#include "qemu/launch.h"

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
		chosen = clone_absolute(recorded ? image->machine.cwd : NULL,
					program);
	else
		chosen = strdup(program);
	if (!chosen)
		return -ENOMEM;
	free(line->program);
	line->program = chosen;
	return 0;
}

/* Writes the stream while QEMU reads it: a confined child, which reads the
 * image for that. */
struct feeder {
	const char *dir;
	bool with_ram;
	int fd;
};

static int write_pipe(void *opaque, uint64_t at, const void *buf, size_t len)
{
	struct feeder *feeder = opaque;

	(void)at;
	/* EPIPE: QEMU ended, and has said why. */
	return io_write_full(feeder->fd, buf, len);
}

static int feed(void *data)
{
	struct feeder *feeder = data;
	_cleanup_image_ struct image *image = NULL;
	struct savevm_sink sink = { write_pipe, feeder };
	int r = image_open(&image, feeder->dir);

	return r ? r : convert_stream(image, feeder->with_ram, &sink);
}

static int load(struct launch *launch, const char *program,
		const struct image *image, bool eager)
{
	_cleanup_free_ char *words = NULL;
	_cleanup_close_ int fd = steal_fd(&launch->stream_fd);
	struct feeder feeder = {
		.dir = image->path,
		.with_ram = eager,
		.fd = fd,
	};
	struct confined child;
	int r, fed;

	r = confined_start(&child, image->path, NULL, feed, &feeder);
	if (r)
		return r;
	/* QEMU sees its end when the child has ended. */
	close_fd(&fd);
	r = launch_wait(launch, !image->machine.running);
	words = steal_ptr(launch->last_words);
	/* A VM that did not come up is killed, so that the child ends. */
	if (r)
		launch_deinit(launch);
	fed = confined_wait(&child);
	/* Positive: an image that could not be read, which has been said. */
	if (fed > 0)
		return fed;
	if (r == -EINTR || (r && fed == -EINTR))
		return log_errno(-EINTR, "interrupted; the VM was ended");
	if (r == -ECONNABORTED)
		log_error("%s did not take the image: %s", program, words);
	return r ? r : fed;
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
		.deny_punching = !report->eager && !clone_keeps_files(binary),
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

static void warn_of_unsafe(const struct image *image)
{
	for (size_t i = 0; i < image->inventory.n_unsafe; i++)
		log_warning("%s: taken with --unsafe, may be torn: %s",
			    image->path, image->inventory.unsafe[i]);
}

int restore_check_image(const struct image *image)
{
	if (image->inventory.kind != IMAGE_KIND_QEMU) {
		log_error(
			"%s: is the image of a process, not of a QEMU; a process cannot be restored",
			image->path);
		return RESULT_FAILED;
	}
	warn_of_unsafe(image);
	return 0;
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
	r = image_summary_open(&image, options->image);
	if (!r)
		r = restore_check_image(image);
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
		r = clone_cmdline(options, image, &binary, dir.path, path,
				  &line, &report->eager);
	if (!r)
		r = fill_command(path, &line, report);
	if (r)
		return r;
	if (options->print) {
		if (!report->eager && !clone_keeps_files(&binary))
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
