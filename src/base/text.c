/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The code point at `s`, and how many bytes it takes; 0: none is there. */
static size_t decode(const unsigned char *s, uint32_t *point)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = *s < 0x80		       ? 1
		     : *s >= 0xc2 && *s < 0xe0 ? 2
		     : *s >= 0xe0 && *s < 0xf0 ? 3
		     : *s >= 0xf0 && *s < 0xf5 ? 4
					       : 0;

	if (len < 2) {
		*point = *s;
		return len;
	}
	*point = *s & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		/* The NUL at the end is none either. */
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*point = *point << 6 | (s[i] & 0x3f);
	}
	return *point < least[len] || *point > 0x10ffff ? 0 : len;
}

static bool is_shown(uint32_t point)
{
	if (point < 0x20 || (point >= 0x7f && point < 0xa0))
		return false;
	/* Marks and overrides of the direction, line separators; surrogates. */
	return !(point >= 0x200e && point <= 0x200f) &&
	       !(point >= 0x2028 && point <= 0x202e) &&
	       !(point >= 0x2066 && point <= 0x2069) &&
	       !(point >= 0xd800 && point <= 0xdfff);
}

char *text_make_printable(char *text)
{
	unsigned char *s = (unsigned char *)text;
	uint32_t point;

	while (s && *s) {
		size_t len = decode(s, &point);

		if (len && is_shown(point)) {
			s += len;
			continue;
		}
		/* Of a character that is not shown, every byte. */
		for (len += !len; len; len--)
			*s++ = '?';
	}
	return text;
}
