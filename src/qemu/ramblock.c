/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/ramblock.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"

/* A guest has a few dozen; DIMMs and devices add a few each. */
#define RAM_BLOCKS_MAX 65536

/* A text without its leading and trailing blanks. */
struct slice {
	const char *start;
	const char *end;
};

static struct slice trim(struct slice s)
{
	while (s.start < s.end && isspace((unsigned char)*s.start))
		s.start++;
	while (s.start < s.end && isspace((unsigned char)s.end[-1]))
		s.end--;
	return s;
}

/* Cuts the last word off `line`. Empty when there is none. */
static struct slice cut_last(struct slice *line)
{
	struct slice word;

	*line = trim(*line);
	word.start = word.end = line->end;
	while (word.start > line->start &&
	       !isspace((unsigned char)word.start[-1]))
		word.start--;
	line->end = word.start;
	return word;
}

static bool slice_is(struct slice s, const char *text)
{
	size_t len = strlen(text);

	return (size_t)(s.end - s.start) == len && !memcmp(s.start, text, len);
}

/* "0x" and 1 to 16 hexadecimal digits, nothing else. */
static bool parse_hex(struct slice s, uint64_t *value)
{
	size_t len = (size_t)(s.end - s.start);
	char text[19];

	if (len < 3 || len > 18 || s.start[0] != '0' || s.start[1] != 'x')
		return false;
	memcpy(text, s.start, len);
	text[len] = '\0';
	if (strspn(text + 2, "0123456789abcdefABCDEF") != len - 2)
		return false;
	*value = strtoull(text + 2, NULL, 16);
	return true;
}

/* size_to_str() in QEMU's util/cutils.c: "%0.3g %sB". A page size is a power
 * of two, so its number is whole and has at most four digits. */
static bool parse_size(struct slice number, struct slice unit, uint64_t *size)
{
	static const struct {
		const char *name;
		unsigned shift;
	} units[] = {
		{ "B", 0 },    { "KiB", 10 }, { "MiB", 20 },
		{ "GiB", 30 }, { "TiB", 40 },
	};
	uint64_t value = 0;
	const char *c;
	size_t i;

	if (number.start == number.end || number.end - number.start > 4)
		return false;
	for (c = number.start; c < number.end; c++) {
		if (!isdigit((unsigned char)*c))
			return false;
		value = value * 10 + (uint64_t)(*c - '0');
	}
	for (i = 0; i < ARRAY_SIZE(units); i++) {
		if (!slice_is(unit, units[i].name))
			continue;
		*size = value << units[i].shift;
		/* Also refuses 0. */
		return *size >= PAGE_SIZE && !(*size & (*size - 1));
	}
	return false;
}

static bool lengths_are_sane(const struct ram_block *block)
{
	uint64_t end;

	return block->used_length && block->used_length <= block->max_length &&
	       !(block->used_length % PAGE_SIZE) &&
	       !(block->max_length % PAGE_SIZE) &&
	       !(block->offset % PAGE_SIZE) && !(block->host % PAGE_SIZE) &&
	       !__builtin_add_overflow(block->offset, block->max_length,
				       &end) &&
	       !__builtin_add_overflow(block->host, block->max_length, &end);
}

/*
 * From the right, since a name may hold blanks:
 *   NAME  4 KiB  OFFSET USED TOTAL [HVA ro|rw]
 * Leaves the name NULL where there is none.
 */
static int parse_line(struct slice line, struct ram_block *block)
{
	struct slice word, unit, number;

	*block = (struct ram_block){ 0 };
	word = cut_last(&line);
	if (slice_is(word, "ro") || slice_is(word, "rw")) {
		if (!parse_hex(cut_last(&line), &block->host))
			return -EPROTO;
		word = cut_last(&line);
	}
	if (!parse_hex(word, &block->max_length) ||
	    !parse_hex(cut_last(&line), &block->used_length) ||
	    !parse_hex(cut_last(&line), &block->offset))
		return -EPROTO;
	unit = cut_last(&line);
	number = cut_last(&line);
	line = trim(line);
	if (number.start != number.end && line.start == line.end)
		return 0;
	if (!parse_size(number, unit, &block->page_size) ||
	    !lengths_are_sane(block) ||
	    line.end - line.start > RAM_BLOCK_NAME_MAX)
		return -EPROTO;
	block->name = strndup(line.start, (size_t)(line.end - line.start));
	return block->name ? 0 : -ENOMEM;
}

static int append(struct ram_blocks *blocks, const struct ram_block *block)
{
	struct ram_block *grown;

	if (blocks->n_blocks == RAM_BLOCKS_MAX)
		return -EPROTO;
	grown = reallocarray(blocks->blocks, blocks->n_blocks + 1,
			     sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	blocks->blocks = grown;
	grown[blocks->n_blocks++] = *block;
	return 0;
}

static int compare_offset(const void *a, const void *b)
{
	const struct ram_block *const *x = a, *const *y = b;

	return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

static int compare_name(const void *a, const void *b)
{
	const struct ram_block *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

/* Names and offsets are QEMU's own keys of a block: each is there once. */
static int check_distinct(const struct ram_blocks *blocks)
{
	const struct ram_block **sorted;
	_cleanup_free_ void *owned = NULL;
	size_t i;

	owned = calloc(blocks->n_blocks, sizeof(struct ram_block *));
	if (!owned)
		return -ENOMEM;
	sorted = owned;
	for (i = 0; i < blocks->n_blocks; i++)
		sorted[i] = &blocks->blocks[i];

	qsort(sorted, blocks->n_blocks, sizeof(*sorted), compare_offset);
	for (i = 1; i < blocks->n_blocks; i++)
		if (sorted[i]->offset <
		    sorted[i - 1]->offset + sorted[i - 1]->max_length)
			return -EPROTO;
	qsort(sorted, blocks->n_blocks, sizeof(*sorted), compare_name);
	for (i = 1; i < blocks->n_blocks; i++)
		if (!strcmp(sorted[i]->name, sorted[i - 1]->name))
			return -EPROTO;
	return 0;
}

static int parse_table(const char *text, struct ram_blocks *blocks)
{
	const char *next, *line = strchr(text, '\n');
	int r;

	/* The first line is the heading. */
	if (!strstr(text, "Block Name") || !line)
		return -EPROTO;
	for (line++; *line; line = next) {
		struct slice slice = { line, line + strcspn(line, "\n") };
		struct ram_block block;

		next = *slice.end ? slice.end + 1 : slice.end;
		slice = trim(slice);
		if (slice.start == slice.end)
			continue;
		r = parse_line(slice, &block);
		if (r)
			return r;
		if (!block.name)
			continue;
		r = append(blocks, &block);
		if (r) {
			free(block.name);
			return r;
		}
	}
	return blocks->n_blocks ? check_distinct(blocks) : -EPROTO;
}

int ram_blocks_parse(const char *text, struct ram_blocks *out)
{
	int r;

	*out = (struct ram_blocks){ 0 };
	r = parse_table(text, out);
	if (r)
		ram_blocks_deinit(out);
	return r;
}

int ram_blocks_query(struct qmp *qmp, struct ram_blocks *out)
{
	_cleanup_free_ char *text = NULL;
	int r;

	*out = (struct ram_blocks){ 0 };
	r = qmp_human(qmp, "info ramblock", &text);
	if (r)
		return log_errno(r, "qmp: info ramblock: %s", qmp_error(qmp));
	r = ram_blocks_parse(text, out);
	if (r)
		return log_errno(r, "qmp: info ramblock: unknown format: %m");
	return 0;
}

void ram_blocks_deinit(struct ram_blocks *blocks)
{
	size_t i;

	for (i = 0; i < blocks->n_blocks; i++)
		free(blocks->blocks[i].name);
	free(blocks->blocks);
	*blocks = (struct ram_blocks){ 0 };
}

struct ram_block *ram_blocks_find(const struct ram_blocks *blocks,
				  const char *name)
{
	size_t i;

	for (i = 0; i < blocks->n_blocks; i++)
		if (!strcmp(blocks->blocks[i].name, name))
			return &blocks->blocks[i];
	return NULL;
}
