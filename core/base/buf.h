/*
 * buf - a growing run of bytes with a read position.
 *
 * What:    append at the end, consume from the front; the room is kept for the next use.
 * Threads: none of its own; the owner of the buf.
 * Memory:  owns its bytes. A pointer into it is void after the next append.
 * Errors:  RC_ERR_NOMEM, and then nothing was appended.
 * Not:     no shrinking by itself; call rc_buf_trim where a large value must not stay for ever.
 */
#ifndef RC_BUF_H
#define RC_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rc_buf {
    char *bytes;
    size_t start; /* first byte not yet consumed */
    size_t end;   /* one past the last byte */
    size_t room;  /* allocated bytes */
};

void rc_buf_init(struct rc_buf *buf); /* allocates nothing */
void rc_buf_deinit(struct rc_buf *buf);
/* Makes room for `more` bytes behind `end`; the caller writes there and moves `end`. */
int rc_buf_reserve(struct rc_buf *buf, size_t more);
void rc_buf_consume(struct rc_buf *buf, size_t len); /* len <= rc_buf_len */
void rc_buf_trim(struct rc_buf *buf,
                 size_t keep); /* frees the room of an empty buf that holds more than `keep` */
void rc_buf_swap(struct rc_buf *a, struct rc_buf *b);

static inline size_t rc_buf_len(const struct rc_buf *buf)
{
    return buf->end - buf->start;
}

static inline const char *rc_buf_head(const struct rc_buf *buf)
{
    return buf->start == 0 ? buf->bytes : buf->bytes + buf->start; /* NULL + 0 is undefined in C */
}

static inline void rc_buf_clear(struct rc_buf *buf)
{
    buf->start = buf->end = 0;
}

static inline int rc_buf_append(struct rc_buf *buf, const void *bytes, size_t len)
{
    /* The room is nearly always there; asking here spares a call. */
    if (len > buf->room - buf->end) {
        int error = rc_buf_reserve(buf, len);
        if (error != 0)
            return error;
    }
    if (len > 0) /* `bytes` may be NULL then */
        memcpy(buf->bytes + buf->end, bytes, len);
    buf->end += len;
    return 0;
}

/* Either may be without bytes, and then NULL, which memcmp does not take. */
static inline bool rc_buf_is(const struct rc_buf *buf, const char *bytes, size_t len)
{
    return rc_buf_len(buf) == len && (len == 0 || memcmp(rc_buf_head(buf), bytes, len) == 0);
}

#endif
