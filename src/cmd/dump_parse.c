/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd/dump_parse.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/result.h"
#include "base/util.h"
#include "cmd/cmd.h"

#define STALL_MIN_MS 100u

int dump_parse_format(const char *text, enum dump_format *format)
{
	if (!strcmp(text, "image")) {
		*format = DUMP_IMAGE;
	} else if (!strcmp(text, "qemu")) {
		*format = DUMP_QEMU;
	} else if (!strcmp(text, "core")) {
		*format = DUMP_CORE;
	} else {
		log_error(
			"dump: --format %s: is no format; there are image, qemu and core",
			text);
		return RESULT_USAGE;
	}
	return 0;
}

int dump_parse_granule(const char *text, uint64_t *bytes)
{
	int r = parse_size("--granule", text, bytes);

	if (r)
		return r;
	if (*bytes & (*bytes - 1) || *bytes < PAGE_SIZE || *bytes > PMD_SIZE) {
		log_error("--granule %s: must be a power of two from 4K to 2M",
			  text);
		return RESULT_USAGE;
	}
	return 0;
}

/* A plain number is MiB a second; with a suffix it is a size a second. */
int dump_parse_rate(const char *text, uint64_t *rate)
{
	int r = parse_size("--rate-limit", text, rate);

	if (!r && text[strspn(text, "0123456789")] == '\0') {
		if (*rate > INT64_MAX / MIB)
			return RESULT_USAGE;
		*rate *= MIB;
	}
	return r;
}

/* "overlay" or "overlay:DIR". */
int dump_parse_disks(const char *text, struct storage_options *storage)
{
	static const char with_dir[] = "overlay:";

	storage->overlay = true;
	storage->overlay_dir = NULL;
	if (!strcmp(text, "overlay"))
		return 0;
	if (strncmp(text, with_dir, strlen(with_dir))) {
		log_error("--disks %s: is not overlay or overlay:DIR", text);
		return RESULT_USAGE;
	}
	storage->overlay_dir = text + strlen(with_dir);
	/* QEMU opens it, whose working directory is another. */
	if (*storage->overlay_dir != '/') {
		log_error("--disks %s: DIR must be absolute, as the VM sees it",
			  text);
		return RESULT_USAGE;
	}
	return 0;
}

int dump_parse_number(const char *option, const char *text, unsigned min,
		      unsigned max, unsigned *number)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value < min || value > max) {
		log_error("%s %s: must be a number from %u to %u", option, text,
			  min, max);
		return RESULT_USAGE;
	}
	*number = (unsigned)value;
	return 0;
}

int dump_parse_ms(const char *option, const char *text, unsigned min,
		  unsigned max, uint64_t *ns)
{
	unsigned ms;
	int r = dump_parse_number(option, text, min, max, &ms);

	if (!r)
		*ns = ms * NS_PER_MS;
	return r;
}

int dump_parse_stall(const char *text, unsigned max, uint64_t *ns)
{
	int r = dump_parse_ms("--max-stall", text, 0, max, ns);

	/* Less is what a thread may have to wait for a processor. */
	if (r || !*ns || *ns >= STALL_MIN_MS * NS_PER_MS)
		return r;
	log_error("--max-stall %s: must be at least %u, or 0", text,
		  STALL_MIN_MS);
	return RESULT_USAGE;
}

int dump_parse_kind(const char *text, enum dump_kind *kind)
{
	if (!strcmp(text, "qemu")) {
		*kind = DUMP_KIND_QEMU;
	} else if (!strcmp(text, "process")) {
		*kind = DUMP_KIND_PROCESS;
	} else {
		log_error("--as %s: is neither qemu nor process", text);
		return RESULT_USAGE;
	}
	return 0;
}

int dump_parse_hold(const char *text, enum dump_hold *hold)
{
	if (!strcmp(text, "auto")) {
		*hold = DUMP_HOLD_AUTO;
	} else if (!strcmp(text, "yes")) {
		*hold = DUMP_HOLD_YES;
	} else if (!strcmp(text, "no")) {
		*hold = DUMP_HOLD_NO;
	} else {
		log_error("dump: --hold-unmaps %s: is neither auto, yes nor no",
			  text);
		return RESULT_USAGE;
	}
	return 0;
}

int dump_parse_writers(const char *text, enum dump_writers *writers)
{
	if (!strcmp(text, "auto")) {
		*writers = DUMP_WRITERS_AUTO;
	} else if (!strcmp(text, "refuse")) {
		*writers = DUMP_WRITERS_REFUSE;
	} else {
		log_error("dump: --writers %s: is neither refuse nor auto",
			  text);
		return RESULT_USAGE;
	}
	return 0;
}

int dump_parse_freeze(const char *text, bool *by_cgroup)
{
	*by_cgroup = !strcmp(text, "cgroup");
	if (*by_cgroup || !strcmp(text, "ptrace"))
		return 0;
	log_error("dump: --freeze %s: is neither ptrace nor cgroup", text);
	return RESULT_USAGE;
}
