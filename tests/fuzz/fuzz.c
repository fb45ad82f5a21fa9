/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/sandbox.h"

/* base/log.h, for which the library's own is not linked then. */

static bool had_error;

bool log_had_error(void)
{
	return had_error;
}

void log_set_level(enum log_level level)
{
	(void)level;
}

enum log_level log_get_level(void)
{
	return LOG_DEBUG;
}

static void format(const char *fmt, va_list args)
{
	char line[1024];

	vsnprintf(line, sizeof(line), fmt, args);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	va_list args;

	had_error |= level == LOG_ERROR;
	va_start(args, fmt);
	format(fmt, args);
	va_end(args);
}

int log_errno(int err, const char *fmt, ...)
{
	va_list args;

	had_error = true;
	va_start(args, fmt);
	format(fmt, args);
	va_end(args);
	return err;
}

/* sys/sandbox.h: a fuzzer must go on. */

int sandbox_enter(const struct sandbox *sandbox)
{
	(void)sandbox;
	return 0;
}

bool sandbox_is_whole(void)
{
	return false;
}

struct fuzz_part fuzz_next_part(struct fuzz_input *input)
{
	static const char mark[] = "\n%%\n";
	struct fuzz_part part = { input->data, input->len };
	const uint8_t *end;

	if (input->ended || !input->len) {
		input->ended = true;
		return (struct fuzz_part){ NULL, 0 };
	}
	end = memmem(input->data, input->len, mark, strlen(mark));
	if (!end) {
		input->ended = true;
		return part;
	}
	part.len = (size_t)(end - part.data);
	input->data = end + strlen(mark);
	input->len -= part.len + strlen(mark);
	return part;
}

char *fuzz_string(struct fuzz_part part)
{
	char *text =
		strndup(part.data ? (const char *)part.data : "", part.len);

	fuzz_require(text);
	return text;
}

static char dir_path[64];
static int dir_fd = -1;

static void remove_dir(void)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf '%s'", dir_path);
	if (system(command))
		fprintf(stderr, "%s: not removed\n", dir_path);
}

int fuzz_dir(void)
{
	if (dir_fd >= 0)
		return dir_fd;
	strcpy(dir_path, "/dev/shm/snapuffd-fuzz-XXXXXX");
	fuzz_require(mkdtemp(dir_path));
	atexit(remove_dir);
	dir_fd = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fuzz_require(dir_fd >= 0);
	return dir_fd;
}

const char *fuzz_dir_path(void)
{
	fuzz_dir();
	return dir_path;
}

void fuzz_put(const char *name, struct fuzz_part part)
{
	int fd;

	if (!part.len) {
		unlinkat(fuzz_dir(), name, 0);
		return;
	}
	fd = openat(fuzz_dir(), name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
		    0600);
	fuzz_require(fd >= 0);
	fuzz_require(write(fd, part.data, part.len) == (ssize_t)part.len);
	close(fd);
}

int fuzz_sink(void *opaque, uint64_t at, const void *buf, size_t len)
{
	static volatile uint8_t last;

	(void)opaque;
	(void)at;
	/* Touches both ends. */
	if (len)
		last = ((const uint8_t *)buf)[0] ^
		       ((const uint8_t *)buf)[len - 1];
	(void)last;
	return 0;
}
