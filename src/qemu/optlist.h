/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * The value of a QEMU command-line option: "FIRST,key=value,flag", a comma in a
 * value doubled (util/qemu-option.c, util/keyval.c), or a JSON object. Keys of
 * nested objects are joined by dots, as -blockdev and -object take them too;
 * null is an empty value, as -blockdev has it.
 *
 * Running out of memory makes a list say so in optlist_error(), once for all
 * calls before; until then the others may be called on.
 */

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct optlist_item {
	char *key;   /* NULL: the first part, which goes without a key */
	char *value; /* NULL: a flag, "server" */
};

struct optlist {
	struct optlist_item *items;
	size_t n_items;
	bool no_memory;
};

/*
 * `implied` is the key that the first part has when it is written out, wherever
 * that stands: it becomes the first part. NULL: there is none. 0, -ENOMEM, or
 * -EINVAL for JSON that is broken or holds what no list can.
 */
int optlist_init(struct optlist *list, const char *text, const char *implied);
void optlist_deinit(struct optlist *list);

#define _cleanup_optlist_ _cleanup_(optlist_deinit)

/* The first part; NULL when the list begins with a key. */
const char *optlist_first(const struct optlist *list);
void optlist_set_first(struct optlist *list, const char *value);

/* The value of a key, the last one's; "" for a flag; NULL: not there. */
const char *optlist_get(const struct optlist *list, const char *key);
bool optlist_has(const struct optlist *list, const char *key);

/* Whether a key is "on", a flag that stands alone, or `otherwise` if absent. */
bool optlist_is_on(const struct optlist *list, const char *key, bool otherwise);

/* Sets a key once: where it stands, else at the end. */
void optlist_set(struct optlist *list, const char *key, const char *value);

/* Removes a key and what is nested in it: "hostfwd", "hostfwd.0.str". */
void optlist_remove(struct optlist *list, const char *key);

/* 0 or -ENOMEM. */
int optlist_error(const struct optlist *list);

/* The whole as text, to be freed; NULL: no memory. */
char *optlist_print(const struct optlist *list);
