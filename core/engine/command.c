#include "engine/command.h"

#include <string.h>

#include "redcache.h"

enum {
    DIGITS_MAX = 20,           /* of a 64 bit number, or 19 and a sign */
    HEAD_MAX = DIGITS_MAX + 3, /* '*' or '$', digits, "\r\n" */
    FRAME_MAX = HEAD_MAX + 2   /* and the "\r\n" behind the bytes */
};

static unsigned count_digits(uint64_t number)
{
    unsigned count = 1;
    for (; number >= 100; number /= 100)
        count += 2;
    return count + (number >= 10);
}

/* As many as count_digits says. */
static char *write_counted(char *to, uint64_t number, unsigned count)
{
    static const char PAIRS[] =
        "00010203040506070809101112131415161718192021222324252627282930313233"
        "34353637383940414243444546474849505152535455565758596061626364656667"
        "6869707172737475767778798081828384858687888990919293949596979899";
    char *at = to + count;
    for (; number >= 10; number /= 100)
        memcpy(at -= 2, PAIRS + 2 * (number % 100), 2);
    if (at > to)
        *to = (char)('0' + number);
    return to + count;
}

static char *write_digits(char *to, uint64_t number)
{
    if (number < 10) { /* nearly all lengths of arguments have one digit or two */
        *to = (char)('0' + number);
        return to + 1;
    }
    if (number < 100) {
        to[0] = (char)('0' + number / 10);
        to[1] = (char)('0' + number % 10);
        return to + 2;
    }
    return write_counted(to, number, count_digits(number));
}

static char *write_end(char *to)
{
    memcpy(to, "\r\n", 2);
    return to + 2;
}

static char *write_head(char *to, char type, uint64_t number)
{
    *to = type;
    return write_end(write_digits(to + 1, number));
}

static char *write_bytes(char *to, const void *bytes, size_t len)
{
    if (len > 0)
        memcpy(to, bytes, len);
    return to + len;
}

/* Where the next bytes go; NULL without memory. */
static char *reserve(struct rc_buf *out, size_t more)
{
    /* The room is nearly always there; asking here spares a call per argument. */
    if (more > out->room - out->end && rc_buf_reserve(out, more) != 0)
        return NULL;
    return out->bytes + out->end;
}

static int finish(struct rc_buf *out, const char *end)
{
    out->end = (size_t)(end - out->bytes);
    return 0;
}

int rc_command_head(struct rc_buf *out, uint32_t argument_count)
{
    char *at = reserve(out, HEAD_MAX);
    if (at == NULL)
        return RC_ERR_NOMEM;
    return finish(out, write_head(at, '*', argument_count));
}

int rc_command_bytes(struct rc_buf *out, const void *bytes, size_t len)
{
    if (len > SIZE_MAX - FRAME_MAX)
        return RC_ERR_NOMEM;
    char *at = reserve(out, len + FRAME_MAX);
    if (at == NULL)
        return RC_ERR_NOMEM;
    at = write_bytes(write_head(at, '$', len), bytes, len);
    return finish(out, write_end(at));
}

int rc_command_text(struct rc_buf *out, const char *text)
{
    return rc_command_bytes(out, text, strlen(text));
}

int rc_command_int(struct rc_buf *out, int64_t number)
{
    bool negative = number < 0;
    uint64_t size = negative ? 0 - (uint64_t)number : (uint64_t)number;
    char *at = reserve(out, DIGITS_MAX + FRAME_MAX);
    if (at == NULL)
        return RC_ERR_NOMEM;
    unsigned count = count_digits(size);
    at = write_head(at, '$', count + negative);
    if (negative)
        *at++ = '-';
    return finish(out, write_end(write_counted(at, size, count)));
}

int rc_command_pair(struct rc_buf *out, const void *first, size_t first_len, const void *second,
                    size_t second_len)
{
    if (first_len > SIZE_MAX - FRAME_MAX || second_len > SIZE_MAX - FRAME_MAX - first_len)
        return RC_ERR_NOMEM;
    size_t len = first_len + second_len;
    char *at = reserve(out, len + FRAME_MAX);
    if (at == NULL)
        return RC_ERR_NOMEM;
    at = write_bytes(write_head(at, '$', len), first, first_len);
    return finish(out, write_end(write_bytes(at, second, second_len)));
}

/* A command of one argument, whose head and name stand in `verb`. */
static char *write_keyed(char *to, const char *verb, size_t verb_len, const char *key, size_t len)
{
    to = write_bytes(to, verb, verb_len);
    return write_end(write_bytes(write_head(to, '$', len), key, len));
}

int rc_command_read(struct rc_buf *out, const char *key, size_t len, bool with_ttl)
{
    static const char GET[] = "*2\r\n$3\r\nGET\r\n", PTTL[] = "*2\r\n$4\r\nPTTL\r\n";
    enum { VERBS = sizeof GET + sizeof PTTL };
    if (len > SIZE_MAX / 2 - VERBS - 2 * FRAME_MAX)
        return RC_ERR_NOMEM;
    char *at = reserve(out, VERBS + (with_ttl ? 2 : 1) * (len + FRAME_MAX));
    if (at == NULL)
        return RC_ERR_NOMEM;
    at = write_keyed(at, GET, sizeof GET - 1, key, len);
    if (with_ttl)
        at = write_keyed(at, PTTL, sizeof PTTL - 1, key, len);
    return finish(out, at);
}

static bool read_head(struct rc_command_reader *reader, char type, size_t *number)
{
    const char *at = reader->at;
    size_t value = 0;
    if (at == reader->end || *at++ != type)
        return false;
    while (at < reader->end && *at >= '0' && *at <= '9' && value < SIZE_MAX / 16)
        value = value * 10 + (size_t)(*at++ - '0');
    if (reader->end - at < 2 || at[0] != '\r' || at[1] != '\n')
        return false;
    reader->at = at + 2;
    *number = value;
    return true;
}

bool rc_command_next_word(struct rc_command_reader *reader, struct rc_command_word *word)
{
    size_t len;
    if (!read_head(reader, '$', &len) || (size_t)(reader->end - reader->at) < 2 ||
        len > (size_t)(reader->end - reader->at) - 2)
        return false;
    *word = (struct rc_command_word){reader->at, len};
    reader->at += len + 2;
    return true;
}

bool rc_command_open(struct rc_command_reader *reader, struct rc_command *command)
{
    size_t count;
    command->start = reader->at;
    if (!read_head(reader, '*', &count) || count == 0 || count > UINT32_MAX ||
        !rc_command_next_word(reader, &command->name))
        return false;
    command->count = (uint32_t)count;
    command->rest = *reader;
    return true;
}

bool rc_command_close(struct rc_command_reader *reader, struct rc_command *command)
{
    struct rc_command_word word;
    for (uint32_t i = 1; i < command->count; i++) {
        if (!rc_command_next_word(reader, &word))
            return false;
    }
    command->len = (size_t)(reader->at - command->start);
    command->rest.end = reader->at;
    return true;
}

bool rc_command_next(struct rc_command_reader *reader, struct rc_command *command)
{
    return rc_command_open(reader, command) && rc_command_close(reader, command);
}
