/*
 * command - writes requests as RESP arrays of bulk strings.
 *
 * What:    appends "*argc", then "$len" and bytes per argument to a buf.
 * Threads: the owner of the buf.
 * Memory:  appends to the given buf.
 * Errors:  RC_ERR_NOMEM; the buf then holds a part of a command and must be cleared.
 * Not:     does not check that as many arguments follow as were announced.
 */
#ifndef RC_COMMAND_H
#define RC_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

int rc_command_head(struct rc_buf *out, uint32_t argument_count);
int rc_command_bytes(struct rc_buf *out, const void *bytes, size_t len);
int rc_command_text(struct rc_buf *out, const char *text); /* NUL-ended */
int rc_command_int(struct rc_buf *out, int64_t number);
/* The argument's two halves joined: an entry is header and payload in one string. */
int rc_command_pair(struct rc_buf *out, const void *first, size_t first_len, const void *second,
                    size_t second_len);
/* GET of a key, and PTTL of it where the remaining life is asked for, too. Without memory the buf
   is as it was. */
int rc_command_read(struct rc_buf *out, const char *key, size_t len, bool with_ttl);
/* The length of the first of the commands that were encoded there. 0: it is not whole. */
size_t rc_command_len(const char *bytes, size_t len);

#endif
