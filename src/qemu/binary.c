/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/binary.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "sys/run.h"

#define OUTPUT_MAX (256 * KIB)

static int ask(const char *program, const char *option, const char *value,
	       char **text)
{
	char *argv[] = { (char *)program, (char *)option, (char *)value, NULL };
	int r = run_program(argv, OUTPUT_MAX, text);

	if (r < 0 && r != -ENOMEM) {
		log_errno(r, "%s: cannot be run: %m", program);
		return RESULT_FAILED;
	}
	return r < 0 ? r : 0;
}

int qemu_binary_init(struct qemu_binary *binary, const char *program)
{
	_cleanup_free_ char *text = NULL;
	int r;

	*binary = (struct qemu_binary){ .program = strdup(program) };
	if (!binary->program)
		return -ENOMEM;
	r = ask(program, "--version", NULL, &text);
	if (r)
		return r;
	if (sscanf(text, "QEMU emulator version %d.%d.%d", &binary->major,
		   &binary->minor, &binary->micro) != 3) {
		log_error("%s: is no QEMU system emulator: it says '%.*s'",
			  program, (int)strcspn(text, "\n"), text);
		return RESULT_FAILED;
	}
	return ask(program, "-machine", "help", &binary->machines);
}

void qemu_binary_deinit(struct qemu_binary *binary)
{
	free(binary->program);
	free(binary->machines);
	*binary = (struct qemu_binary){};
}

/* Lines are "NAME   description", "(alias of CLASS)" or "(default)" behind. */
int qemu_binary_machine(const struct qemu_binary *binary, const char *name,
			char **class)
{
	static const char alias[] = "(alias of ";
	const char *line = binary->machines, *end, *of, *is_default;

	for (; *line; line = *end ? end + 1 : end) {
		size_t len = strcspn(line, " \n");

		end = line + strcspn(line, "\n");
		is_default = memmem(line, (size_t)(end - line), "(default)", 9);
		if (name ? len != strlen(name) || strncmp(line, name, len)
			 : !is_default)
			continue;
		of = memmem(line, (size_t)(end - line), alias,
			    sizeof(alias) - 1);
		if (of) {
			line = of + sizeof(alias) - 1;
			len = strcspn(line, ")\n");
		}
		*class = strndup(line, len);
		return *class ? 0 : -ENOMEM;
	}
	return -ENOENT;
}
