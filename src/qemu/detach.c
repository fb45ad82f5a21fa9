/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/detach.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "qemu/optlist.h"

#define NAMES_MAX 64

/* The directory of the new VM, and the names that are taken in it. */
struct place {
	const char *dir;
	char *names[NAMES_MAX];
	size_t n_names;
};

/* One option's value -> another one: an allocated text; or NULL with *r set. */
typedef char *(*rewrite_fn)(const char *value, struct place *place, int *r);

static char *print(const struct optlist *list, int *r)
{
	char *text = optlist_print(list);

	if (!text)
		*r = -ENOMEM;
	return text;
}

static void place_deinit(struct place *place)
{
	while (place->n_names)
		free(place->names[--place->n_names]);
}

static bool is_taken(const struct place *place, const char *name)
{
	/* launch.h's log */
	if (!strcmp(name, "qemu.log"))
		return true;
	for (size_t i = 0; i < place->n_names; i++)
		if (!strcmp(place->names[i], name))
			return true;
	return false;
}

/* "DIR/serial.log" of "/var/log/serial.log", "DIR/1-serial.log" of the next one
 * of that name; to be freed. NULL: no memory, or more than anybody has. */
static char *in_place(struct place *place, const char *path)
{
	const char *base = strrchr(path, '/');
	char *name, *to;

	base = base ? base + 1 : path;
	if (place->n_names == NAMES_MAX)
		return NULL;
	if (is_taken(place, base)
		    ? asprintf(&name, "%zu-%s", place->n_names, base) < 0
		    : !(name = strdup(base)))
		return NULL;
	place->names[place->n_names++] = name;
	return asprintf(&to, "%s/%s", place->dir, name) < 0 ? NULL : to;
}

/* Gives a key another file of the same name. */
static void redirect(struct optlist *list, const char *key, struct place *place)
{
	_cleanup_free_ char *to = in_place(place, optlist_get(list, key));

	if (to)
		optlist_set(list, key, to);
	else
		list->no_memory = true;
}

static char *detach_path(const char *value, struct place *place, int *r)
{
	char *to = in_place(place, value);

	if (!to)
		*r = -ENOMEM;
	return to;
}

/* "unix:PATH,server=on,wait=off" and the other short forms of a character
 * device: -qmp, -monitor, -serial, -parallel, -debugcon. */
static char *detach_short_chardev(const char *value, struct place *place,
				  int *r)
{
	static const char *const keep[] = { "null", "none",  "pty",
					    "vc",   "stdio", "chardev:" };
	static const char *const files[] = { "unix:", "file:" };
	_cleanup_optlist_ struct optlist list = {};
	_cleanup_free_ char *path = NULL, *rest = NULL;
	char *text = NULL;
	bool is_unix;

	/* A monitor on the same device: what it is follows. */
	if (!strncmp(value, "mon:", 4)) {
		rest = detach_short_chardev(value + 4, place, r);
		if (!rest || asprintf(&text, "mon:%s", rest) < 0)
			return NULL;
		return text;
	}
	for (size_t i = 0; i < ARRAY_SIZE(keep); i++)
		if (!strncmp(value, keep[i], strlen(keep[i])))
			return strdup(value);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (strncmp(value, files[i], strlen(files[i])))
			continue;
		is_unix = !i;
		*r = optlist_init(&list, value + strlen(files[i]), NULL);
		if (!*r && !optlist_first(&list))
			*r = -EINVAL;
		if (*r)
			return NULL;
		/* One that calls somebody has nobody to call. */
		if (is_unix && !optlist_is_on(&list, "server", false))
			break;
		path = in_place(place, optlist_first(&list));
		if (!path)
			return NULL;
		optlist_set_first(&list, path);
		if (is_unix) {
			/* Nobody need be there for the VM to run. */
			optlist_remove(&list, "nowait");
			optlist_set(&list, "wait", "off");
		}
		rest = print(&list, r);
		if (rest && asprintf(&text, "%s%s", files[i], rest) < 0)
			text = NULL;
		return text;
	}
	return strdup("null");
}

/* Leaves nothing of a character device but what names and shares it. */
static void make_null(struct optlist *list)
{
	static const char *const keep[] = { "id", "mux" };
	size_t to = 0;

	for (size_t i = 0; i < list->n_items; i++) {
		struct optlist_item *item = &list->items[i];
		bool kept = false;

		for (size_t k = 0; item->key && k < ARRAY_SIZE(keep); k++)
			kept |= !strcmp(item->key, keep[k]);
		if (kept) {
			list->items[to++] = *item;
			continue;
		}
		free(item->key);
		free(item->value);
	}
	list->n_items = to;
	optlist_set_first(list, "null");
}

/* A listening socket gets a path of its own, also one that was handed in. */
static void move_server(struct optlist *list, struct place *place)
{
	char *name;

	if (!optlist_has(list, "path")) {
		if (asprintf(&name, "%s.sock",
			     optlist_get(list, "id") ?: "chardev") < 0) {
			list->no_memory = true;
			return;
		}
		optlist_remove(list, "fd");
		optlist_set(list, "path", name);
		free(name);
	}
	redirect(list, "path", place);
	optlist_remove(list, "nowait");
	optlist_set(list, "wait", "off");
}

/* A log: one that was handed in (-add-fd) has no name but its id. */
static void move_file(struct optlist *list, struct place *place)
{
	if (!strncmp(optlist_get(list, "path"), "/dev/fdset/", 11))
		optlist_set(list, "path", optlist_get(list, "id") ?: "chardev");
	redirect(list, "path", place);
}

static char *detach_chardev(const char *value, struct place *place, int *r)
{
	static const char *const keep[] = { "null",  "pty",	"vc",
					    "stdio", "ringbuf", "memory" };
	_cleanup_optlist_ struct optlist list = {};
	const char *backend;
	bool kept = false;

	*r = optlist_init(&list, value, "backend");
	if (*r)
		return NULL;
	backend = optlist_first(&list) ?: "";
	if (optlist_has(&list, "logfile"))
		redirect(&list, "logfile", place);
	for (size_t i = 0; i < ARRAY_SIZE(keep); i++)
		kept |= !strcmp(backend, keep[i]);
	if (!strcmp(backend, "file") && optlist_has(&list, "path"))
		move_file(&list, place);
	else if (!strcmp(backend, "socket") &&
		 optlist_is_on(&list, "server", false) &&
		 (optlist_has(&list, "path") || optlist_has(&list, "fd")))
		move_server(&list, place);
	else if (!kept)
		make_null(&list);
	return print(&list, r);
}

static char *detach_netdev(const char *value, struct place *place, int *r)
{
	static const char *const drop[] = {
		"hostfwd", "smb",    "smbserver",  "guestfwd", "ifname",
		"fd",	   "fds",    "vhostfd",	   "vhostfds", "helper",
		"br",	   "script", "downscript",
	};
	_cleanup_optlist_ struct optlist list = {};
	const char *type;

	(void)place;
	*r = optlist_init(&list, value, "type");
	if (*r)
		return NULL;
	type = optlist_first(&list) ?: "";
	/* -net nic, -nic none, a port of a hub: the guest's side. */
	if (!strcmp(type, "nic") || !strcmp(type, "none") ||
	    !strcmp(type, "hubport"))
		return strdup(value);

	/* "fds=30:31": each is a queue, of which the card has as many. */
	if (optlist_has(&list, "fds")) {
		char queues[16];
		unsigned n = 1;

		for (const char *c = optlist_get(&list, "fds"); *c; c++)
			n += *c == ':';
		snprintf(queues, sizeof(queues), "%u", n);
		optlist_set(&list, "queues", queues);
	}
	for (size_t i = 0; i < ARRAY_SIZE(drop); i++)
		optlist_remove(&list, drop[i]);
	if (!strcmp(type, "tap") || !strcmp(type, "bridge")) {
		/* A network card's state depends on what a tap device can do,
		 * so it must be one. */
		optlist_set_first(&list, "tap");
		optlist_set(&list, "script", "no");
		optlist_set(&list, "downscript", "no");
	} else if (strcmp(type, "user")) {
		_cleanup_optlist_ struct optlist user = {};

		*r = optlist_init(&user, "user", "type");
		if (*r)
			return NULL;
		if (optlist_has(&list, "id"))
			optlist_set(&user, "id", optlist_get(&list, "id"));
		if (optlist_has(&list, "model"))
			optlist_set(&user, "model",
				    optlist_get(&list, "model"));
		if (optlist_has(&list, "mac"))
			optlist_set(&user, "mac", optlist_get(&list, "mac"));
		optlist_set(&user, "restrict", "on");
		return print(&user, r);
	}
	return print(&list, r);
}

static char *detach_audio(const char *value, struct place *place, int *r)
{
	_cleanup_optlist_ struct optlist list = {}, none = {};

	(void)place;
	*r = optlist_init(&list, value, "driver");
	if (!*r)
		*r = optlist_init(&none, "none", "driver");
	if (*r)
		return NULL;
	if (optlist_has(&list, "id"))
		optlist_set(&none, "id", optlist_get(&list, "id"));
	return print(&none, r);
}

/* What QEMU writes there is one VM's. */
static char *detach_trace(const char *value, struct place *place, int *r)
{
	_cleanup_optlist_ struct optlist list = {};

	*r = optlist_init(&list, value, "enable");
	if (*r)
		return NULL;
	if (optlist_has(&list, "file"))
		redirect(&list, "file", place);
	return print(&list, r);
}

/* Whatever is said in a file, sockets among it, would be shared. */
static char *refuse(const char *value, struct place *place, int *r)
{
	(void)value;
	(void)place;
	*r = -EOPNOTSUPP;
	return NULL;
}

/* A key in a file that went with the VM, as libvirt's do: what it protects
 * cannot be had any more, but the object may be asked for. */
static char *detach_object(const char *value, struct place *place, int *r)
{
	_cleanup_optlist_ struct optlist list = {};
	const char *file, *type;

	*r = optlist_init(&list, value, "qom-type");
	if (*r)
		return NULL;
	type = optlist_first(&list) ?: "";
	file = optlist_get(&list, "file");
	if (!strcmp(type, "filter-dump") && file) {
		redirect(&list, "file", place);
		return print(&list, r);
	}
	if (strcmp(type, "secret") || !file || !access(file, R_OK))
		return strdup(value);
	optlist_remove(&list, "file");
	optlist_remove(&list, "format");
	optlist_set(&list, "data", "00000000000000000000000000000000");
	return print(&list, r);
}

static const struct rule {
	const char *name;
	rewrite_fn rewrite; /* NULL: the option goes */
} rules[] = {
	{ "S", NULL },
	{ "daemonize", NULL },
	{ "incoming", NULL },
	{ "loadvm", NULL },
	{ "gdb", NULL },
	{ "s", NULL },
	{ "writeconfig", NULL },
	{ "qtest", NULL },
	{ "qtest-log", NULL },
	{ "add-fd", NULL },
	{ "display", NULL },
	{ "curses", NULL },
	{ "sdl", NULL },
	{ "vnc", NULL },
	{ "spice", NULL },
	{ "full-screen", NULL },
	{ "pidfile", detach_path },
	{ "D", detach_path },
	{ "qmp", detach_short_chardev },
	{ "qmp-pretty", detach_short_chardev },
	{ "monitor", detach_short_chardev },
	{ "serial", detach_short_chardev },
	{ "parallel", detach_short_chardev },
	{ "debugcon", detach_short_chardev },
	{ "readconfig", refuse },
	{ "trace", detach_trace },
	{ "chardev", detach_chardev },
	{ "object", detach_object },
	{ "netdev", detach_netdev },
	{ "nic", detach_netdev },
	{ "net", detach_netdev },
	{ "audiodev", detach_audio },
};

static const struct rule *find_rule(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (!strcmp(rules[i].name, name))
			return &rules[i];
	return NULL;
}

int detach_cmdline(struct cmdline *line, const char *run_dir)
{
	_cleanup_(place_deinit) struct place place = { .dir = run_dir };
	size_t i = 0;

	while (i < line->n_options) {
		const struct cmdline_option *option = &line->options[i];
		const struct rule *rule = find_rule(option->name);
		char *value;
		int r = 0;

		if (!rule) {
			i++;
			continue;
		}
		if (!rule->rewrite) {
			cmdline_remove(line, i);
			continue;
		}
		value = rule->rewrite(option->value, &place, &r);
		if (r == -EINVAL)
			return log_errno(r, "-%s %s: cannot be read",
					 option->name, option->value);
		if (r == -EOPNOTSUPP) {
			log_error(
				"-%s %s: what is in that file may be the first VM's alone; give the whole command line after --",
				option->name, option->value);
			return -EINVAL;
		}
		cmdline_replace(line, i++, rule->name, value);
	}
	if (!cmdline_get(line, "nographic"))
		cmdline_add(line, "display", "none");
	return cmdline_error(line);
}
