/*
 * error_text - what may be told of an error that a server has answered.
 *
 * What:    Redis repeats arguments in some of its errors ("unknown command 'X', with args beginning
 *          with: ..."), a proxy or another server may in any: values, tokens, passwords. So no byte
 *          of such a text is handed on. A text of a known form is told as that form, with "?" where
 *          it varies; of any other only its code word remains, if that is a known one. Commands
 *          that redcache sends, and the address in MOVED and ASK, are told as they are.
 * Threads: pure.
 * Memory:  the caller's.
 * Errors:  none: what does not fit or is not known is left out.
 * Not:     no check that Redis has meant it.
 */
#ifndef RC_ERROR_TEXT_H
#define RC_ERROR_TEXT_H

#include <stddef.h>

enum { RC_ERROR_TEXT_SIZE = 320 };

/* Writes what may be told of an error's text, without the "-". Returns its length, at most
   RC_ERROR_TEXT_SIZE. */
size_t rc_error_text(char out[RC_ERROR_TEXT_SIZE], const char *text, size_t len);

#endif
