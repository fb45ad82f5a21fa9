/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

/*
 * Puts '?' where a text would drive a terminal instead of being shown: control
 * characters, those of C1 too, what reverses the direction of writing, and
 * bytes that are no UTF-8. In place; the length stays. Returns the text; NULL
 * is fine.
 */
char *text_make_printable(char *text);
