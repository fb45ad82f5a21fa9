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

static int parse(const struct cmdline_option *option, const char *implied,
		 struct optlist *list)
{
	int r = optlist_init(list, option->value, implied);

	if (r == -EINVAL)
		log_error("-%s %s: cannot be read", option->name,
			  option->value);
	return r;
}

/* Writes a changed list back to its option. */
static int store(struct cmdline *line, size_t i, const struct optlist *list)
{
	cmdline_replace(line, i, line->options[i].name, optlist_print(list));
	return cmdline_error(line);
}

char *clone_get_machine(const struct cmdline *line, int *r)
{
	char *machine = NULL;

	*r = 0;
	for (size_t i = 0; !*r && i < line->n_options; i++) {
		_cleanup_optlist_ struct optlist list = {};

		if (!is_machine(&line->options[i]))
			continue;
		*r = parse(&line->options[i], "type", &list);
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
		r = parse(&line->options[i], "type", &list);
		if (r)
			return r;
		if (key)
			optlist_set(&list, key, value);
		else
			optlist_set_first(&list, value);
		return store(line, i, &list);
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
		r = parse(&line->options[i], "type", &list);
		if (!r && optlist_first(&list)) {
			optlist_set_first(&list, class);
			r = store(line, i, &list);
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
		r = parse(option, "size", &list);
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
		r = parse(option, "qom-type", list);
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
		return store(line, i, &new);

	text = optlist_print(&new);
	if (!text)
		return -ENOMEM;
	cmdline_add(line, "object", text);
	cmdline_remove_all(line, "mem-path");
	cmdline_remove_all(line, "mem-prealloc");
	return set_machine(line, "memory-backend", id);
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
		r = parse(&line->options[i], "qom-type", &old);
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
		r = store(line, i, &new);
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

/* Whether a path of the command line is that file, by name or by inode. */
static bool is_file(const char *path, const char *cwd, const char *file)
{
	_cleanup_free_ char *full = NULL;
	struct stat a, b;

	if (!path)
		return false;
	if (!strncmp(path, "file:", 5))
		path += 5;
	if (*path != '/') {
		if (asprintf(&full, "%s/%s", cwd, path) < 0)
			return false;
		path = full;
	}
	if (!strcmp(path, file))
		return true;
	return !stat(path, &a) && !stat(file, &b) && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* -drive file=…, and -hda and its like, which become one. */
static int replace_drive(struct cmdline *line, size_t i, const char *overlay)
{
	const char *name = line->options[i].name;
	_cleanup_optlist_ struct optlist list = {};
	char index[2] = "";
	int r;

	if (!strcmp(name, "drive")) {
		r = parse(&line->options[i], NULL, &list);
	} else {
		index[0] = (char)(name[2] - 'a' + '0'); /* "hda" */
		r = optlist_init(&list, "", NULL);
		optlist_set(&list, "index", index);
		optlist_set(&list, "media", "disk");
	}
	if (r)
		return r;
	optlist_set(&list, "file", overlay);
	optlist_set(&list, "format", "qcow2");
	cmdline_replace(line, i, "drive", optlist_print(&list));
	return cmdline_error(line);
}

/* The node above the one named `child` reads what is now a qcow2. */
static int set_format_above(struct cmdline *line, const char *child)
{
	for (size_t i = 0; i < line->n_options; i++) {
		_cleanup_optlist_ struct optlist list = {};
		int r;

		if (strcmp(line->options[i].name, "blockdev"))
			continue;
		r = parse(&line->options[i], "driver", &list);
		if (r)
			return r;
		if (strcmp(optlist_get(&list, "file") ?: "", child))
			continue;
		optlist_set_first(&list, "qcow2");
		/* Whatever was said of it, the overlay has one. */
		optlist_remove(&list, "backing");
		return store(line, i, &list);
	}
	return -ENOENT;
}

/* -blockdev driver=file,filename=…, or a format with its file inside. */
static int replace_node(struct cmdline *line, size_t i, struct optlist *list,
			const char *key, const char *overlay)
{
	const char *name = optlist_get(list, "node-name");
	int r;

	optlist_set(list, key, overlay);
	/* What is not said anew is found out: of a file, not of a device. */
	if (!strcmp(key, "file.filename")) {
		optlist_set(list, "file.driver", "file");
		optlist_remove(list, "backing");
		optlist_set_first(list, "qcow2");
		return store(line, i, list);
	}
	optlist_set_first(list, "file");
	r = name ? set_format_above(line, name) : -ENOENT;
	return r ? r : store(line, i, list);
}

static int replace_in_option(struct cmdline *line, size_t i, const char *cwd,
			     const char *file, const char *overlay)
{
	static const char *const keys[] = { "filename", "file.filename" };
	const struct cmdline_option *option = &line->options[i];
	_cleanup_optlist_ struct optlist list = {};
	int r;

	if (!strncmp(option->name, "hd", 2) && strlen(option->name) == 3)
		return is_file(option->value, cwd, file)
			       ? replace_drive(line, i, overlay)
			       : -ENOENT;
	if (strcmp(option->name, "drive") && strcmp(option->name, "blockdev"))
		return -ENOENT;
	r = parse(option, strcmp(option->name, "blockdev") ? NULL : "driver",
		  &list);
	if (r)
		return r;
	if (!strcmp(option->name, "drive"))
		return is_file(optlist_get(&list, "file"), cwd, file)
			       ? replace_drive(line, i, overlay)
			       : -ENOENT;
	for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
		if (is_file(optlist_get(&list, keys[k]), cwd, file))
			return replace_node(line, i, &list, keys[k], overlay);
	return -ENOENT;
}

/* Whether an option names an image file, and does not say that it is only
 * read. */
static int names_writable(const struct cmdline_option *option,
			  struct optlist *list, const char **file)
{
	const char *driver;
	int r;

	*file = NULL;
	if (!strncmp(option->name, "hd", 2) && strlen(option->name) == 3) {
		*file = option->value;
		return 0;
	}
	if (!strcmp(option->name, "drive")) {
		r = parse(option, NULL, list);
		if (!r && !optlist_is_on(list, "readonly", false) &&
		    !optlist_is_on(list, "read-only", false) &&
		    !optlist_is_on(list, "snapshot", false) &&
		    strcmp(optlist_get(list, "media") ?: "", "cdrom"))
			*file = optlist_get(list, "file");
		return r;
	}
	if (strcmp(option->name, "blockdev"))
		return 0;
	r = parse(option, "driver", list);
	if (r || optlist_is_on(list, "read-only", false))
		return r;
	driver = optlist_first(list) ?: "";
	if (!strcmp(driver, "file") || !strcmp(driver, "host_device"))
		*file = optlist_get(list, "filename");
	else if (!optlist_has(list, "backing.file.filename"))
		*file = optlist_get(list, "file.filename");
	return 0;
}

int clone_next_disk(const struct cmdline *line, size_t *i, char **file)
{
	for (; *i < line->n_options; ++*i) {
		_cleanup_optlist_ struct optlist list = {};
		const char *found;
		int r = names_writable(&line->options[*i], &list, &found);

		if (r)
			return r;
		if (!found || !*found)
			continue;
		++*i;
		*file = strdup(found);
		return *file ? 1 : -ENOMEM;
	}
	return 0;
}

int clone_replace_disk(struct cmdline *line, const char *cwd, const char *file,
		       const char *overlay)
{
	int result = -ENOENT;

	for (size_t i = 0; i < line->n_options; i++) {
		int r = replace_in_option(line, i, cwd, file, overlay);

		if (r && r != -ENOENT)
			return r;
		if (!r)
			result = 0;
	}
	return result;
}
