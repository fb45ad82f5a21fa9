/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The one log sink: stderr, a line a message, "snapuffd: subject: what".
 * Who first sees an error logs it, once; everyone above just returns it.
 * Threads may log at once; a line is written with one write(2).
 */

#include <stdbool.h>

enum log_level {
	LOG_NOTHING = -1,
	LOG_ERROR,   /* the command fails; always shown */
	LOG_WARNING, /* goes on, but the user should know */
	LOG_INFO,    /* --verbose */
	LOG_DEBUG,   /* --verbose twice */
};

void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* Whether an error was logged: who ends the program without one must say why.
 */
bool log_had_error(void);
/* Another process of this command has. */
void log_note_error(void);

void log_write(enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define log_error(...)	 log_write(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_info(...)	 log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 log_write(LOG_DEBUG, __VA_ARGS__)

/*
 * Log one error and return its code: `return log_errno(-errno, "…: %m")` has
 * the value of `err`; %m prints it, for errno is set to -err meanwhile.
 */
int log_errno(int err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
