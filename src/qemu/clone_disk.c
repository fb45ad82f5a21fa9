/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/clone.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "qemu/optlist.h"

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
		r = cmdline_parse(line, i, NULL, &list);
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
		r = cmdline_parse(line, i, "driver", &list);
		if (r)
			return r;
		if (strcmp(optlist_get(&list, "file") ?: "", child))
			continue;
		optlist_set_first(&list, "qcow2");
		/* Whatever was said of it, the overlay has one. */
		optlist_remove(&list, "backing");
		return cmdline_store(line, i, &list);
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
		return cmdline_store(line, i, list);
	}
	optlist_set_first(list, "file");
	r = name ? set_format_above(line, name) : -ENOENT;
	return r ? r : cmdline_store(line, i, list);
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
	r = cmdline_parse(line, i,
			  strcmp(option->name, "blockdev") ? NULL : "driver",
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
static int names_writable(const struct cmdline *line, size_t i,
			  struct optlist *list, const char **file)
{
	const struct cmdline_option *option = &line->options[i];
	const char *driver;
	int r;

	*file = NULL;
	if (!strncmp(option->name, "hd", 2) && strlen(option->name) == 3) {
		*file = option->value;
		return 0;
	}
	if (!strcmp(option->name, "drive")) {
		r = cmdline_parse(line, i, NULL, list);
		if (!r && !optlist_is_on(list, "readonly", false) &&
		    !optlist_is_on(list, "read-only", false) &&
		    !optlist_is_on(list, "snapshot", false) &&
		    strcmp(optlist_get(list, "media") ?: "", "cdrom"))
			*file = optlist_get(list, "file");
		return r;
	}
	if (strcmp(option->name, "blockdev"))
		return 0;
	r = cmdline_parse(line, i, "driver", list);
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
		int r = names_writable(line, *i, &list, &found);

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
