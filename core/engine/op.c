#include "engine/op.h"

#include <assert.h>
#include <string.h>

/* What a slot in use keeps of a large value. Its keeper shrinks an idle one. */
enum { KEEP_BYTES = 256 * 1024 };

int rc_op_init(struct rc_op *op)
{
    memset(op, 0, sizeof *op);
    rc_list_init(&op->run.active);
    rc_list_init(&op->run.member);
    rc_buf_init(&op->ask.key);
    rc_buf_init(&op->ask.request);
    rc_buf_init(&op->ask.written);
    rc_reply_init(&op->reply);
    return 0;
}

void rc_op_deinit(struct rc_op *op)
{
    rc_buf_deinit(&op->ask.key);
    rc_buf_deinit(&op->ask.request);
    rc_buf_deinit(&op->ask.written);
    rc_reply_deinit(&op->reply);
}

void rc_op_reset(struct rc_op *op, enum rc_op_kind kind)
{
    assert(!op->run.is_running);
    op->ask.kind = kind;
    op->ask.flags = 0;
    op->ask.script = -1;
    op->ask.at_slot = RC_OP_BY_KEY;
    op->ask.expect = 0;
    op->ask.lent = NULL;
    op->ask.near = op->ask.is_plain = false;
    rc_buf_clear(&op->ask.request);
    rc_buf_trim(&op->ask.request, KEEP_BYTES);
    rc_buf_clear(&op->ask.written);
    rc_buf_trim(&op->ask.written, KEEP_BYTES);
    rc_reply_trim(&op->reply, KEEP_BYTES);
    memset(&op->result, 0, sizeof op->result);
    op->result.ttl_ms = -2;
}

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

void rc_op_measure(struct rc_op *op)
{
    size_t room = largest(op->ask.request.room, op->reply.arena.room);
    room = largest(room, largest(op->ask.written.room, op->ask.key.room));
    room = largest(room, op->reply.room * sizeof *op->reply.nodes);
    op->result.room_bits = room > 1 ? (uint8_t)(64 - __builtin_clzll(room - 1)) : 0;
}

void rc_op_shrink(struct rc_op *op, size_t keep_bytes)
{
    assert(!op->run.is_running);
    struct rc_buf *bufs[] = {&op->ask.key, &op->ask.request, &op->ask.written};
    for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++) {
        rc_buf_clear(bufs[i]);
        rc_buf_trim(bufs[i], keep_bytes);
    }
    rc_reply_trim(&op->reply, keep_bytes);
    op->ask.expect = 0;
    op->result.data = NULL;
    op->result.len = 0;
    op->result.nodes = 0;
    rc_op_measure(op);
}

void rc_op_keep(struct rc_op *op, const char *bytes, size_t len)
{
    rc_reply_clear(&op->reply);
    if (rc_buf_append(&op->reply.arena, bytes, len) != 0) {
        op->result.status = RC_ERR_NOMEM;
        len = 0;
    }
    op->result.data = rc_buf_head(&op->reply.arena);
    op->result.len = len;
}

void rc_op_keep_entry(struct rc_op *op, const char *bytes, size_t len, int64_t ttl_ms)
{
    if (bytes != NULL) {
        rc_op_keep(op, bytes, len);
        bytes = op->result.data != NULL ? op->result.data : "";
        len = op->result.len;
    }
    rc_entry_read_with_ttl(&op->result, bytes, len, ttl_ms);
}
