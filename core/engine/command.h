/*
 * command - requests as RESP arrays of bulk strings: writes them, and reads them again.
 *
 * What:    appends "*argc", then "$len" and bytes per argument to a buf. Of such bytes it finds the
 *          commands, one after the other, and the words of each.
 * Threads: the owner of the buf.
 * Memory:  appends to the given buf. What is read points into the bytes.
 * Errors:  RC_ERR_NOMEM; the buf then holds a part of a command and must be cleared. Reading: false
 *          where no whole command stands there.
 * Not:     the writer does not check that as many arguments follow as were announced.
 */
#ifndef RC_COMMAND_H
#define RC_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

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

/* What of encoded commands, or of the words of one, is still to be read. */
struct rc_command_reader {
    const char *at, *end;
};

struct rc_command_word {
    const char *bytes;
    size_t len;
};

/* One command: "*3", its name, and the rest. */
struct rc_command {
    const char *start;
    size_t len;
    uint32_t count; /* words, its name included */
    struct rc_command_word name;
    struct rc_command_reader rest; /* the words behind the name */
};

/* Reads the next command. False: none is there, or it is not whole; the reader is of no use then.
 */
bool rc_command_next(struct rc_command_reader *reader, struct rc_command *command);
/* The two halves of that: reads the head and the name, then all words up to the end of the command.
   Between them `len` and the end of `rest` are not known. */
bool rc_command_open(struct rc_command_reader *reader, struct rc_command *command);
bool rc_command_close(struct rc_command_reader *reader, struct rc_command *command);
/* Reads the next word of a command. False: there is none. */
bool rc_command_next_word(struct rc_command_reader *reader, struct rc_command_word *word);
/* As Redis compares names: in either case of letters. `text` is NUL-ended. */
static inline bool rc_command_is_word(struct rc_command_word word, const char *text)
{
    return word.len == strlen(text) && strncasecmp(word.bytes, text, word.len) == 0;
}

#endif
