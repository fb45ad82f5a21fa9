/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

static enum log_level log_level = LOG_WARNING;
static _Atomic bool had_error;

bool log_had_error(void)
{
	return had_error;
}

void log_note_error(void)
{
	had_error = true;
}

void log_set_level(enum log_level level)
{
	log_level = level;
}

enum log_level log_get_level(void)
{
	return log_level;
}

static void log_vwrite(enum log_level level, const char *fmt, va_list ap)
{
	char line[1024] = "snapuffd: ";
	size_t len = strlen(line);
	ssize_t r;
	int n;

	if (level > log_level)
		return;

	if (level == LOG_ERROR)
		had_error = true;
	if (level == LOG_WARNING) {
		strcat(line, "warning: ");
		len = strlen(line);
	}

	n = vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
	if (n < 0)
		return;
	/* A target's names end up in messages. */
	text_make_printable(line);
	len = strlen(line);
	line[len++] = '\n';

	do {
		r = write(STDERR_FILENO, line, len);
	} while (r < 0 && errno == EINTR);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	log_vwrite(level, fmt, ap);
	va_end(ap);
	errno = saved;
}

int log_errno(int err, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	errno = err < 0 ? -err : err;
	va_start(ap, fmt);
	log_vwrite(LOG_ERROR, fmt, ap);
	va_end(ap);
	errno = saved;
	return err;
}
