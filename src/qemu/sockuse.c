/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/sockuse.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longer keys and values than a socket's name can be are of no interest; they
 * are cut off, and equal nothing. */
struct option {
	char key[32];
	char value[256];
};

struct socket_id {
	const char *name;
	const int *fds;
	size_t n_fds;
};

static void append(char *buf, size_t size, size_t *len, char c)
{
	if (*len + 1 < size)
		buf[(*len)++] = c;
	buf[*len] = '\0';
}

/*
 * The next KEY=VALUE of a list; false at its end. A first part without '=' is
 * the value of `implied`, a later one a key without value.
 */
static bool next_option(const char **cursor, const char *implied,
			struct option *option)
{
	const char *c = *cursor;
	size_t len = 0;

	if (!*c)
		return false;
	*option = (struct option){ 0 };
	if (c[strcspn(c, "=,")] == '=' || !implied) {
		for (; *c && *c != '=' && *c != ','; c++)
			append(option->key, sizeof(option->key), &len, *c);
		if (*c == '=')
			c++;
	} else {
		snprintf(option->key, sizeof(option->key), "%s", implied);
	}

	for (len = 0; *c; c++) {
		if (*c == ',' && *++c != ',')
			break;
		append(option->value, sizeof(option->value), &len, *c);
	}
	*cursor = c;
	return true;
}

/* The value of a key; "" when there is none. The last one counts. */
static void get_option(const char *list, const char *implied, const char *key,
		       struct option *found)
{
	struct option option;

	*found = (struct option){ 0 };
	for (; next_option(&list, implied, &option); implied = NULL)
		if (!strcmp(option.key, key))
			*found = option;
}

static bool is_our_fd(const char *text, const struct socket_id *id)
{
	char *end;
	long fd = strtol(text, &end, 10);
	size_t i;

	for (i = 0; *text && !*end && i < id->n_fds; i++)
		if (fd == id->fds[i])
			return true;
	return false;
}

/* Whether a socket chardev's options are about this socket. */
static bool names_socket(const char *list, const char *implied,
			 const struct socket_id *id)
{
	struct option option;

	get_option(list, implied, "path", &option);
	if (*option.value && !strcmp(option.value, id->name))
		return true;
	get_option(list, implied, "fd", &option);
	return is_our_fd(option.value, id);
}

/* The argument's option name ("qmp" of "-qmp" and "--qmp"), or "". */
static const char *option_name(const char *arg)
{
	if (*arg != '-')
		return "";
	arg++;
	return *arg == '-' ? arg + 1 : arg;
}

/* The value of -qmp and -qmp-pretty: chardev:ID, or unix:PATH,… */
static bool qmp_names(const char *value, const char *chardev_id,
		      const struct socket_id *id)
{
	if (!strncmp(value, "chardev:", 8))
		return *chardev_id && !strcmp(value + 8, chardev_id);
	return !strncmp(value, "unix:", 5) &&
	       names_socket(value + 5, "path", id);
}

static bool mon_is_qmp_on(const char *value, const char *chardev_id)
{
	struct option chardev, mode;

	get_option(value, "chardev", "chardev", &chardev);
	get_option(value, "chardev", "mode", &mode);
	return *chardev_id && !strcmp(chardev.value, chardev_id) &&
	       !strcmp(mode.value, "control");
}

/* The id of the -chardev that is this socket; "" if none is. */
static void find_chardev(char *const *argv, const struct socket_id *id,
			 struct option *chardev)
{
	*chardev = (struct option){ 0 };
	for (; argv[0] && argv[1]; argv++) {
		if (!strcmp(option_name(argv[0]), "chardev") &&
		    names_socket(argv[1], "backend", id)) {
			get_option(argv[1], "backend", "id", chardev);
			return;
		}
	}
}

static bool is_qmp(char *const *argv, const char *chardev_id,
		   const struct socket_id *id)
{
	const char *name;

	for (; argv[0] && argv[1]; argv++) {
		name = option_name(argv[0]);
		if ((!strcmp(name, "qmp") || !strcmp(name, "qmp-pretty")) &&
		    qmp_names(argv[1], chardev_id, id))
			return true;
		if (!strcmp(name, "mon") && mon_is_qmp_on(argv[1], chardev_id))
			return true;
	}
	return false;
}

/* Whether the name stands in an argument as a whole value, in whatever
 * syntax: "unix:NAME,server", "path=NAME", JSON's "NAME". */
static bool mentions(const char *arg, const char *name)
{
	static const char before[] = ":=,\"' ", after[] = ",\"'; ";
	size_t len = strlen(name);
	const char *hit;

	for (hit = strstr(arg, name); hit; hit = strstr(hit + 1, name))
		if ((hit == arg || strchr(before, hit[-1])) &&
		    (!hit[len] || strchr(after, hit[len])))
			return true;
	return false;
}

enum socket_use socket_use_from_argv(char *const *argv, const char *name,
				     const int *fds, size_t n_fds)
{
	struct socket_id id = { .name = name, .fds = fds, .n_fds = n_fds };
	struct option chardev;

	find_chardev(argv, &id, &chardev);
	if (is_qmp(argv, chardev.value, &id))
		return SOCKET_USE_QMP;
	if (*chardev.value)
		return SOCKET_USE_OTHER;
	for (; *name && *argv; argv++)
		if (mentions(*argv, name))
			return SOCKET_USE_OTHER;
	return SOCKET_USE_UNKNOWN;
}
