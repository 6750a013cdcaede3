#include "base/buf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "redcache.h"

/* The first allocation: most commands and answers fit, so a small buf never grows. */
enum { FIRST_ROOM = 256 };

void rc_buf_init(struct rc_buf *buf)
{
    *buf = (struct rc_buf){0};
}

void rc_buf_deinit(struct rc_buf *buf)
{
    free(buf->bytes);
    rc_buf_init(buf);
}

static void move_to_front(struct rc_buf *buf)
{
    size_t len = rc_buf_len(buf);
    if (buf->start == 0)
        return;
    memmove(buf->bytes, buf->bytes + buf->start, len);
    buf->start = 0;
    buf->end = len;
}

static int grow(struct rc_buf *buf, size_t more)
{
    size_t len = rc_buf_len(buf);
    if (more > SIZE_MAX / 2 - len)
        return RC_ERR_NOMEM;
    size_t room = buf->room > SIZE_MAX / 4 ? SIZE_MAX / 2 : buf->room * 2;
    if (room < FIRST_ROOM)
        room = FIRST_ROOM;
    if (room < len + more)
        room = len + more;
    move_to_front(buf); /* realloc would copy the consumed bytes too */
    char *bytes = realloc(buf->bytes, room);
    if (bytes == NULL)
        return RC_ERR_NOMEM;
    buf->bytes = bytes;
    buf->room = room;
    return 0;
}

int rc_buf_reserve(struct rc_buf *buf, size_t more)
{
    if (more <= buf->room - buf->end)
        return 0;
    /* Only while at most half is alive: a queue that is consumed in small steps would else move
       all of it each time. */
    if (buf->start >= rc_buf_len(buf) && more <= buf->room - rc_buf_len(buf)) {
        move_to_front(buf);
        return 0;
    }
    return grow(buf, more);
}

void rc_buf_consume(struct rc_buf *buf, size_t len)
{
    assert(len <= rc_buf_len(buf));
    buf->start += len;
    if (buf->start == buf->end)
        rc_buf_clear(buf);
}

void rc_buf_trim(struct rc_buf *buf, size_t keep)
{
    if (rc_buf_len(buf) == 0 && buf->room > keep)
        rc_buf_deinit(buf);
}

void rc_buf_swap(struct rc_buf *a, struct rc_buf *b)
{
    struct rc_buf kept = *a;
    *a = *b;
    *b = kept;
}
