/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/cmdline.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "base/util.h"

/* All of QEMU 5.0 to 10.2 that take no value (qemu-options.hx). */
static bool takes_no_value(const char *name)
{
	static const char *const flags[] = {
		"S",
		"alt-grab",
		"ctrl-grab",
		"curses",
		"daemonize",
		"enable-fips",
		"enable-kvm",
		"full-screen",
		"g3dbg",
		"help",
		"h",
		"mem-prealloc",
		"no-acpi",
		"no-fd-bootchk",
		"no-hpet",
		"no-quit",
		"no-reboot",
		"no-shutdown",
		"no-user-config",
		"nodefaults",
		"nographic",
		"old-param",
		"one-insn-per-tb",
		"only-migratable",
		"portrait",
		"preconfig",
		"s",
		"sdl",
		"semihosting",
		"show-cursor",
		"singlestep",
		"snapshot",
		"usb",
		"version",
		"win2k-hack",
		"xen-attach",
		"xen-domid-restrict",
	};

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (!strcmp(name, flags[i]))
			return true;
	return false;
}

static char *copy(struct cmdline *line, const char *text)
{
	char *to = strdup(text);

	if (!to)
		line->no_memory = true;
	return to;
}

/* Takes both. */
static void add_option(struct cmdline *line, char *name, char *value)
{
	struct cmdline_option *options;

	options = reallocarray(line->options, line->n_options + 1,
			       sizeof(*options));
	if (!options || line->no_memory) {
		line->options = options ? options : line->options;
		line->no_memory = true;
		free(name);
		free(value);
		return;
	}
	line->options = options;
	options[line->n_options++] = (struct cmdline_option){ name, value };
}

void cmdline_add(struct cmdline *line, const char *name, const char *value)
{
	add_option(line, copy(line, name), value ? copy(line, value) : NULL);
}

void cmdline_add_format(struct cmdline *line, const char *name, const char *fmt,
			...)
{
	char *value = NULL;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&value, fmt, args) < 0) {
		value = NULL;
		line->no_memory = true;
	}
	va_end(args);
	add_option(line, copy(line, name), value);
}

int cmdline_init(struct cmdline *line, char *const *argv, size_t n)
{
	*line = (struct cmdline){};
	if (!n)
		return -EINVAL;
	line->program = copy(line, argv[0]);
	for (size_t i = 1; i < n; i++) {
		const char *name = argv[i];

		if (*name != '-') {
			cmdline_add(line, "hda", name);
			continue;
		}
		name += name[1] == '-' ? 2 : 1;
		if (takes_no_value(name))
			cmdline_add(line, name, NULL);
		else if (i + 1 < n)
			cmdline_add(line, name, argv[++i]);
		else
			return -EINVAL;
	}
	return cmdline_error(line);
}

void cmdline_deinit(struct cmdline *line)
{
	while (line->n_options)
		cmdline_remove(line, line->n_options - 1);
	free(line->options);
	free(line->program);
	*line = (struct cmdline){};
}

const char *cmdline_get(const struct cmdline *line, const char *name)
{
	for (size_t i = line->n_options; i-- > 0;)
		if (!strcmp(line->options[i].name, name))
			return line->options[i].value ? line->options[i].value
						      : "";
	return NULL;
}

void cmdline_replace(struct cmdline *line, size_t i, const char *name,
		     char *value)
{
	struct cmdline_option *option = &line->options[i];
	char *new_name = copy(line, name);

	if (!new_name || !value) {
		line->no_memory = true;
		free(new_name);
		free(value);
		return;
	}
	free(option->name);
	free(option->value);
	*option = (struct cmdline_option){ new_name, value };
}

int cmdline_parse(const struct cmdline *line, size_t i, const char *implied,
		  struct optlist *list)
{
	const struct cmdline_option *option = &line->options[i];
	int r = optlist_init(list, option->value, implied);

	if (r == -EINVAL)
		log_error("-%s %s: cannot be read", option->name,
			  option->value);
	return r;
}

int cmdline_store(struct cmdline *line, size_t i, const struct optlist *list)
{
	cmdline_replace(line, i, line->options[i].name, optlist_print(list));
	return cmdline_error(line);
}

void cmdline_remove(struct cmdline *line, size_t i)
{
	free(line->options[i].name);
	free(line->options[i].value);
	line->n_options--;
	memmove(line->options + i, line->options + i + 1,
		(line->n_options - i) * sizeof(*line->options));
}

void cmdline_remove_all(struct cmdline *line, const char *name)
{
	for (size_t i = line->n_options; i-- > 0;)
		if (!strcmp(line->options[i].name, name))
			cmdline_remove(line, i);
}

int cmdline_error(const struct cmdline *line)
{
	return line->no_memory ? -ENOMEM : 0;
}

char **cmdline_to_argv(const struct cmdline *line)
{
	size_t n = 2 * line->n_options + 2, names = 0;
	char **argv, *name;

	for (size_t i = 0; i < line->n_options; i++)
		names += strlen(line->options[i].name) + 2;
	if (line->no_memory)
		return NULL;
	argv = malloc(n * sizeof(*argv) + names);
	if (!argv)
		return NULL;
	name = (char *)(argv + n);
	n = 0;
	argv[n++] = line->program;
	for (size_t i = 0; i < line->n_options; i++) {
		const struct cmdline_option *option = &line->options[i];

		argv[n++] = name;
		*name++ = '-';
		name = stpcpy(name, option->name) + 1;
		if (option->value)
			argv[n++] = option->value;
	}
	argv[n] = NULL;
	return argv;
}

static bool is_plain(const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-_=+:,./@%^";

	return *text && !text[strspn(text, plain)];
}

static bool is_printable(const char *text)
{
	_cleanup_free_ char *copy = strdup(text);

	return copy && !strcmp(text_make_printable(copy), text);
}

/* $'…', which bash, zsh and ksh know, and sh does not. */
static void put_escaped(FILE *out, const char *text)
{
	fputs("$'", out);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < ' ' || c >= 0x7f)
			fprintf(out, "\\%03o", c);
		else if (c == '\'' || c == '\\')
			fprintf(out, "\\%c", c);
		else
			fputc(c, out);
	}
	fputc('\'', out);
}

static void put_quoted(FILE *out, const char *text)
{
	if (is_plain(text)) {
		fputs(text, out);
		return;
	}
	fputc('\'', out);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\'", out);
		fputc(*text, out);
	}
	fputc('\'', out);
}

/* What would drive the terminal is not to reach it. */
static void put_shown(FILE *out, const char *text)
{
	if (is_printable(text))
		put_quoted(out, text);
	else
		put_escaped(out, text);
}

char *cmdline_quote(const char *word)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	put_quoted(out, word);
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}

char *cmdline_print(const struct cmdline *line)
{
	char *text = NULL;
	size_t len;
	FILE *out;

	if (line->no_memory)
		return NULL;
	out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	put_shown(out, line->program);
	for (size_t i = 0; i < line->n_options; i++) {
		fputs(" \\\n  -", out);
		put_shown(out, line->options[i].name);
		if (!line->options[i].value)
			continue;
		fputc(' ', out);
		put_shown(out, line->options[i].value);
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
