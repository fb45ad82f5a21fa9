/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qemu/optlist.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of JSON; QEMU's own deepest is 5. */
#define DEPTH_MAX 16

static void add_item(struct optlist *list, char *key, char *value)
{
	struct optlist_item *items;

	items = reallocarray(list->items, list->n_items + 1, sizeof(*items));
	if (items) {
		list->items = items;
		items[list->n_items++] = (struct optlist_item){ key, value };
		return;
	}
	list->no_memory = true;
	free(key);
	free(value);
}

static char *copy(struct optlist *list, const char *text, size_t len)
{
	char *to = strndup(text, len);

	if (!to)
		list->no_memory = true;
	return to;
}

/* Up to the next comma that is not doubled; moves *cursor behind it. */
static char *take_value(struct optlist *list, const char **cursor)
{
	const char *c = *cursor;
	char *value = copy(list, c, strlen(c));
	size_t len = 0;

	for (; value && *c; c++) {
		if (*c == ',' && *++c != ',')
			break;
		value[len++] = *c;
	}
	if (value)
		value[len] = '\0';
	*cursor = c;
	return value;
}

static void parse_text(struct optlist *list, const char *text)
{
	const char *cursor = text;

	while (*cursor && !list->no_memory) {
		size_t key_len = strcspn(cursor, "=,");
		char *key = NULL, *value = NULL;

		if (cursor[key_len] == '=') {
			key = copy(list, cursor, key_len);
			cursor += key_len + 1;
			value = take_value(list, &cursor);
		} else if (cursor == text) {
			value = take_value(list, &cursor);
		} else {
			/* A flag; in its name a comma is not doubled, and
			 * without a name there is none. */
			key = copy(list, cursor, key_len);
			cursor += key_len + (cursor[key_len] == ',');
			if (key && !*key) {
				free(key);
				continue;
			}
		}
		if (list->no_memory) {
			free(key);
			free(value);
			return;
		}
		add_item(list, key, value);
	}
}

static int flatten(struct optlist *list, const char *key, json_t *value,
		   unsigned depth);

static int flatten_members(struct optlist *list, const char *key, json_t *value,
			   unsigned depth)
{
	const char *name;
	json_t *member;
	size_t i;
	int r = 0;

	if (json_is_object(value)) {
		json_object_foreach(value, name, member)
		{
			_cleanup_free_ char *full = NULL;

			if (asprintf(&full, "%s%s%s", key, *key ? "." : "",
				     name) < 0)
				return -ENOMEM;
			r = flatten(list, full, member, depth + 1);
			if (r)
				return r;
		}
		return 0;
	}
	json_array_foreach(value, i, member)
	{
		_cleanup_free_ char *full = NULL;

		if (asprintf(&full, "%s.%zu", key, i) < 0)
			return -ENOMEM;
		r = flatten(list, full, member, depth + 1);
		if (r)
			return r;
	}
	return 0;
}

static int flatten(struct optlist *list, const char *key, json_t *value,
		   unsigned depth)
{
	char *text = NULL;
	int n = 0;

	if (depth > DEPTH_MAX)
		return -EINVAL;
	if (json_is_object(value) || json_is_array(value))
		return flatten_members(list, key, value, depth);

	if (json_is_string(value))
		n = asprintf(&text, "%s", json_string_value(value));
	else if (json_is_integer(value))
		n = asprintf(&text, "%" JSON_INTEGER_FORMAT,
			     json_integer_value(value));
	else if (json_is_null(value))
		n = asprintf(&text, "%s", "");
	else if (json_is_boolean(value))
		n = asprintf(&text, "%s", json_is_true(value) ? "on" : "off");
	else
		return -EINVAL;
	if (n < 0)
		return -ENOMEM;
	add_item(list, copy(list, key, strlen(key)), text);
	return optlist_error(list);
}

/* The implied key's item goes to the front, without its key, unless it stands
 * there so already. */
static void front_implied(struct optlist *list, const char *implied)
{
	struct optlist_item first;
	size_t i = 0;

	if (optlist_first(list))
		return;
	while (i < list->n_items && strcmp(list->items[i].key, implied))
		i++;
	if (i == list->n_items)
		return;
	first = list->items[i];
	memmove(list->items + 1, list->items, i * sizeof(*list->items));
	free(first.key);
	first.key = NULL;
	list->items[0] = first;
}

static int parse_json(struct optlist *list, const char *text)
{
	json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	int r = json_is_object(object) ? flatten(list, "", object, 0) : -EINVAL;

	json_decref(object);
	return r;
}

int optlist_init(struct optlist *list, const char *text, const char *implied)
{
	int r = 0;

	*list = (struct optlist){};
	if (*text == '{')
		r = parse_json(list, text);
	else
		parse_text(list, text);
	if (!r)
		r = optlist_error(list);
	if (!r && implied)
		front_implied(list, implied);
	return r;
}

void optlist_deinit(struct optlist *list)
{
	for (size_t i = 0; i < list->n_items; i++) {
		free(list->items[i].key);
		free(list->items[i].value);
	}
	free(list->items);
	*list = (struct optlist){};
}

const char *optlist_first(const struct optlist *list)
{
	if (!list->n_items || list->items[0].key)
		return NULL;
	return list->items[0].value;
}

static struct optlist_item *find(const struct optlist *list, const char *key)
{
	for (size_t i = list->n_items; i-- > 0;)
		if (list->items[i].key && !strcmp(list->items[i].key, key))
			return &list->items[i];
	return NULL;
}

const char *optlist_get(const struct optlist *list, const char *key)
{
	const struct optlist_item *item = find(list, key);

	if (!item)
		return NULL;
	return item->value ? item->value : "";
}

bool optlist_has(const struct optlist *list, const char *key)
{
	return find(list, key);
}

bool optlist_is_on(const struct optlist *list, const char *key, bool otherwise)
{
	const struct optlist_item *item = find(list, key);

	if (!item)
		return otherwise;
	return !item->value || !strcmp(item->value, "on") ||
	       !strcmp(item->value, "yes") || !strcmp(item->value, "true");
}

void optlist_set_first(struct optlist *list, const char *value)
{
	char *new = copy(list, value, strlen(value));

	if (!new)
		return;
	if (!optlist_first(list)) {
		add_item(list, NULL, NULL);
		if (list->no_memory) {
			free(new);
			return;
		}
		memmove(list->items + 1, list->items,
			(list->n_items - 1) * sizeof(*list->items));
		list->items[0] = (struct optlist_item){};
	}
	free(list->items[0].value);
	list->items[0].value = new;
}

void optlist_set(struct optlist *list, const char *key, const char *value)
{
	struct optlist_item *item = find(list, key);
	char *new = copy(list, value, strlen(value));
	char *new_key;

	if (!new)
		return;
	if (item) {
		free(item->value);
		item->value = new;
		return;
	}
	new_key = copy(list, key, strlen(key));
	if (new_key)
		add_item(list, new_key, new);
	else
		free(new);
}

void optlist_remove(struct optlist *list, const char *key)
{
	size_t to = 0;

	for (size_t i = 0; i < list->n_items; i++) {
		struct optlist_item *item = &list->items[i];

		size_t len = strlen(key);
		bool is_it = item->key && !strncmp(item->key, key, len) &&
			     (!item->key[len] || item->key[len] == '.');

		if (!is_it) {
			list->items[to++] = *item;
			continue;
		}
		free(item->key);
		free(item->value);
	}
	list->n_items = to;
}

int optlist_error(const struct optlist *list)
{
	return list->no_memory ? -ENOMEM : 0;
}

static void put_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == ',')
			fputc(',', out);
		fputc(*text, out);
	}
}

char *optlist_print(const struct optlist *list)
{
	char *text = NULL;
	size_t len;
	FILE *out;

	if (list->no_memory)
		return NULL;
	out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	for (size_t i = 0; i < list->n_items; i++) {
		const struct optlist_item *item = &list->items[i];

		if (i)
			fputc(',', out);
		if (item->key)
			fputs(item->key, out);
		if (item->key && item->value)
			fputc('=', out);
		if (item->value)
			put_escaped(out, item->value);
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
