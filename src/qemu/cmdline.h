/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * A QEMU command line as a list of options, to be changed and run again.
 *
 * As with struct optlist, running out of memory is told once, by
 * cmdline_error(); until then all calls may be made.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "qemu/optlist.h"

struct cmdline_option {
	char *name;  /* "qmp" of "-qmp" and "--qmp"; never NULL */
	char *value; /* NULL: it takes none */
};

struct cmdline {
	char *program; /* argv[0] */
	struct cmdline_option *options;
	size_t n_options;
	bool no_memory;
};

/*
 * Takes `n` arguments, of which there must be one. A lone argument is a disk,
 * as for QEMU: -hda. -EINVAL: an option lacks its value; -ENOMEM.
 */
int cmdline_init(struct cmdline *line, char *const *argv, size_t n);
void cmdline_deinit(struct cmdline *line);

#define _cleanup_cmdline_ _cleanup_(cmdline_deinit)

/* The value of the last option of that name; "" for one without; or NULL. */
const char *cmdline_get(const struct cmdline *line, const char *name);

/* Adds an option at the end. `value` may be NULL. */
void cmdline_add(struct cmdline *line, const char *name, const char *value);
void cmdline_add_format(struct cmdline *line, const char *name, const char *fmt,
			...) __attribute__((format(printf, 3, 4)));

/* Gives option number `i` another name or value (taken; NULL: no memory). */
void cmdline_replace(struct cmdline *line, size_t i, const char *name,
		     char *value);

/*
 * Option number `i`'s value as a list, to be deinited; `implied` as for
 * optlist_init(). -EINVAL, logged, for one that cannot be read; -ENOMEM.
 */
int cmdline_parse(const struct cmdline *line, size_t i, const char *implied,
		  struct optlist *list);

/* Makes a list, changed, the value of option number `i`; 0 or -ENOMEM. */
int cmdline_store(struct cmdline *line, size_t i, const struct optlist *list);

/* Takes option number `i` out; the next one has its number then. */
void cmdline_remove(struct cmdline *line, size_t i);

/* Removes all of that name. */
void cmdline_remove_all(struct cmdline *line, const char *name);

/* 0 or -ENOMEM. */
int cmdline_error(const struct cmdline *line);

/* NULL-terminated; to be freed as a whole with free(), and valid as long as
 * the line is not changed. NULL: no memory. */
char **cmdline_to_argv(const struct cmdline *line);

/* A word as one types it in a shell; to be freed. */
char *cmdline_quote(const char *word);

/* As one types it in a shell, an option a line, and printable; to be freed. */
char *cmdline_print(const struct cmdline *line);
