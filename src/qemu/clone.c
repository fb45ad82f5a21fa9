/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/clone.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/util.h"
#include "qemu/optlist.h"

/* QEMU's default without -m (hw/core/machine.c). */
#define MEMORY_DEFAULT (128 * MIB)

/* The RAM block of a PC that was given no memory-backend. */
#define PC_RAM "pc.ram"

static bool is_machine(const struct cmdline_option *option)
{
	return !strcmp(option->name, "machine") || !strcmp(option->name, "M");
}

char *clone_get_machine(const struct cmdline *line, int *r)
{
	char *machine = NULL;

	*r = 0;
	for (size_t i = 0; !*r && i < line->n_options; i++) {
		_cleanup_optlist_ struct optlist list = {};

		if (!is_machine(&line->options[i]))
			continue;
		*r = cmdline_parse(line, i, "type", &list);
		if (*r || !optlist_first(&list))
			continue;
		free(machine);
		machine = strdup(optlist_first(&list));
		if (!machine)
			*r = -ENOMEM;
	}
	return machine;
}

/* Sets a property of -machine; the type when `key` is NULL. */
static int set_machine(struct cmdline *line, const char *key, const char *value)
{
	for (size_t i = 0; i < line->n_options; i++) {
		_cleanup_optlist_ struct optlist list = {};
		int r;

		if (!is_machine(&line->options[i]))
			continue;
		r = cmdline_parse(line, i, "type", &list);
		if (r)
			return r;
		if (key)
			optlist_set(&list, key, value);
		else
			optlist_set_first(&list, value);
		return cmdline_store(line, i, &list);
	}
	if (key)
		cmdline_add_format(line, "machine", "%s=%s", key, value);
	else
		cmdline_add(line, "machine", value);
	return cmdline_error(line);
}

int clone_set_machine(struct cmdline *line, const char *class)
{
	/* Of several the last type counts. */
	for (size_t i = 0; i < line->n_options; i++) {
		_cleanup_optlist_ struct optlist list = {};
		int r;

		if (!is_machine(&line->options[i]))
			continue;
		r = cmdline_parse(line, i, "type", &list);
		if (!r && optlist_first(&list)) {
			optlist_set_first(&list, class);
			r = cmdline_store(line, i, &list);
		}
		if (r)
			return r;
	}
	return set_machine(line, NULL, class);
}

/* "128M", "2G", "512": MiB without a suffix. */
static bool parse_memory(const char *text, uint64_t *bytes)
{
	static const char units[] = "BKMGT";
	uint64_t unit = MIB;
	const char *at;
	char *end;

	errno = 0;
	*bytes = strtoull(text, &end, 0);
	if (*end) {
		at = strchr(units, *end & ~0x20);
		if (!at)
			return false;
		unit = (uint64_t)1 << (10 * (at - units));
		end++;
		if ((*end & ~0x20) == 'B')
			end++;
	}
	if (errno || *end || *text == '-' || !*bytes ||
	    *bytes > UINT64_MAX / unit)
		return false;
	*bytes *= unit;
	return true;
}

int clone_get_memory(const struct cmdline *line, uint64_t *bytes)
{
	*bytes = MEMORY_DEFAULT;
	for (size_t i = 0; i < line->n_options; i++) {
		const struct cmdline_option *option = &line->options[i];
		_cleanup_optlist_ struct optlist list = {};
		int r;

		if (strcmp(option->name, "m") && strcmp(option->name, "memory"))
			continue;
		r = cmdline_parse(line, i, "size", &list);
		if (r)
			return r;
		if (!optlist_first(&list))
			continue;
		if (!parse_memory(optlist_first(&list), bytes)) {
			log_error("-m %s: is no size of memory",
				  optlist_first(&list));
			return -EINVAL;
		}
	}
	return 0;
}

/* The -object memory-backend-… with that id: 1 and its number and list, 0 when
 * there is none, or an error. */
static int find_backend(const struct cmdline *line, const char *id, size_t *i,
			struct optlist *list)
{
	for (*i = 0; *i < line->n_options; ++*i) {
		const struct cmdline_option *option = &line->options[*i];
		const char *type, *its_id;
		int r;

		if (strcmp(option->name, "object"))
			continue;
		r = cmdline_parse(line, *i, "qom-type", list);
		if (r)
			return r;
		type = optlist_first(list) ?: "";
		its_id = optlist_get(list, "id") ?: "";
		if (!strncmp(type, "memory-backend-", 15) &&
		    !strcmp(its_id, id))
			return 1;
		optlist_deinit(list);
	}
	return 0;
}

/* Whether the block is named "/objects/ID" instead of "ID"; by default it was
 * in machines up to 4.0 (hw/core/machine.c). */
#define CANONICAL "x-use-canonical-path-for-ramblock-id"

static int make_file_backend(struct optlist *list, const char *id,
			     bool canonical, uint64_t size, const char *path,
			     enum clone_file how)
{
	char bytes[32];
	int r = optlist_init(list, "memory-backend-file", "qom-type");

	snprintf(bytes, sizeof(bytes), "%" PRIu64, size);
	optlist_set(list, "id", id);
	optlist_set(list, "size", bytes);
	optlist_set(list, "mem-path", path);
	optlist_set(list, "share", "off");
	optlist_set(list, CANONICAL, canonical ? "on" : "off");
	if (how == CLONE_FILE_READ_ONLY) {
		optlist_set(list, "readonly", "on");
		optlist_set(list, "rom", "off");
	}
	return r ? r : optlist_error(list);
}

int clone_back_ram(struct cmdline *line, const char *idstr, uint64_t size,
		   const char *path, enum clone_file how)
{
	_cleanup_optlist_ struct optlist old = {}, new = {};
	_cleanup_free_ char *text = NULL;
	const char *id = idstr;
	size_t i;
	int found, r;

	/* Machines that name the block by the object's path. */
	if (!strncmp(id, "/objects/", 9))
		id += 9;
	found = find_backend(line, id, &i, &old);
	if (found < 0)
		return found;
	if (!found && strcmp(idstr, PC_RAM))
		return -ENOENT;

	r = make_file_backend(&new, id, id != idstr, size, path, how);
	if (r)
		return r;
	if (found)
		return cmdline_store(line, i, &new);

	text = optlist_print(&new);
	if (!text)
		return -ENOMEM;
	cmdline_add(line, "object", text);
	cmdline_remove_all(line, "mem-path");
	cmdline_remove_all(line, "mem-prealloc");
	return set_machine(line, "memory-backend", id);
}

char *clone_print_ram(const char *id, uint64_t size, const char *path)
{
	_cleanup_optlist_ struct optlist list = {};

	if (make_file_backend(&list, id, false, size, path, CLONE_FILE_PRIVATE))
		return NULL;
	return optlist_print(&list);
}

int clone_unshare_ram(struct cmdline *line)
{
	for (size_t i = 0; i < line->n_options; i++) {
		_cleanup_optlist_ struct optlist old = {}, new = {};
		const char *path;
		struct stat st;
		int r;

		if (strcmp(line->options[i].name, "object"))
			continue;
		r = cmdline_parse(line, i, "qom-type", &old);
		if (r)
			return r;
		path = optlist_get(&old, "mem-path");
		/* In a directory each QEMU makes a file of its own. */
		if (strcmp(optlist_first(&old) ?: "", "memory-backend-file") ||
		    !path || (!stat(path, &st) && S_ISDIR(st.st_mode)))
			continue;
		r = optlist_init(&new, "memory-backend-ram", "qom-type");
		if (r)
			return r;
		optlist_set(&new, "id", optlist_get(&old, "id") ?: "");
		optlist_set(&new, "size", optlist_get(&old, "size") ?: "");
		if (optlist_has(&old, CANONICAL))
			optlist_set(&new, CANONICAL,
				    optlist_get(&old, CANONICAL));
		r = cmdline_store(line, i, &new);
		if (r)
			return r;
	}
	return 0;
}

bool clone_has_id(const struct cmdline *line, const char *id)
{
	for (size_t i = 0; i < line->n_options; i++) {
		const struct cmdline_option *option = &line->options[i];
		_cleanup_optlist_ struct optlist list = {};

		if (strcmp(option->name, "object") &&
		    strcmp(option->name, "device"))
			continue;
		if (!optlist_init(&list, option->value, NULL) &&
		    !strcmp(optlist_get(&list, "id") ?: "", id))
			return true;
	}
	return false;
}
