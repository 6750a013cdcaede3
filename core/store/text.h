/*
 * text - numbers as Redis reads and writes them.
 *
 * What:    integers in their one canonical form, floats, names compared without regard to case.
 * Threads: pure.
 * Memory:  owns no bytes; what is written goes to the caller's room.
 * Errors:  false: the text is no such number, or it is out of range.
 * Not:     floats go by LC_NUMERIC of the process, as in engine/resp.h.
 */
#ifndef RC_TEXT_H
#define RC_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RC_TEXT_INT_MAX = 21, RC_TEXT_FLOAT_MAX = 5 * 1024 };

/* A run of bytes: an argument of a command. bytes NULL: there is none. */
struct rc_text {
    const char *bytes;
    size_t len;
};

/* "0", or an optional minus and digits of which the first is not 0. */
bool rc_text_to_int(struct rc_text text, int64_t *number);
bool rc_text_to_float(struct rc_text text, long double *number);
/* Both return the length; there is no NUL. */
size_t rc_text_from_int(char text[RC_TEXT_INT_MAX], int64_t number);
size_t rc_text_from_float(char text[RC_TEXT_FLOAT_MAX], long double number);

/* `name` is NUL-ended and in upper case. */
bool rc_text_is(struct rc_text text, const char *name);
/* `names`: in lower case, each between two blanks. */
bool rc_text_is_among(const char *names, struct rc_text word);
bool rc_text_equal(struct rc_text a, struct rc_text b); /* no arg equals none but no arg */

#endif
