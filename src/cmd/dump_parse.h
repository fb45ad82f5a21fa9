/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/* The arguments of options of `dump`: 0, or RESULT_USAGE, logged. */

#include "flow/dump.h"

int dump_parse_format(const char *text, enum dump_format *format);
int dump_parse_kind(const char *text, enum dump_kind *kind);
int dump_parse_hold(const char *text, enum dump_hold *hold);
int dump_parse_freeze(const char *text, bool *by_cgroup);
int dump_parse_writers(const char *text, enum dump_writers *writers);
int dump_parse_granule(const char *text, uint64_t *bytes);
int dump_parse_rate(const char *text, uint64_t *rate);
int dump_parse_disks(const char *text, struct storage_options *storage);
int dump_parse_number(const char *option, const char *text, unsigned min,
		      unsigned max, unsigned *number);
int dump_parse_ms(const char *option, const char *text, unsigned min,
		  unsigned max, uint64_t *ns);

/* Milliseconds; 0: no limit. */
int dump_parse_stall(const char *text, unsigned max, uint64_t *ns);
