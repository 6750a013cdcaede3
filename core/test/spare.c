/*
 * spare - what the peer (peer.c) asks the core for on its own behalf is never refused.
 *
 * What:    the build of script/alloc-fail compiles peer.c with rc_buf_reserve=spare_buf_reserve and
 *          so on. The peer is the other side of the line, and it aborts without memory.
 * Errors:  exit(1) where a test uses an op again that, without memory, has not ended yet.
 * Not:     what the engine allocates while the peer turns it is the engine's own.
 */
#include <stdlib.h>

#include "engine/command.h"
#include "engine/engine.h"
#include "engine/lease_request.h"
#include "test/refuse.h"

static int spared(int error)
{
    refuse_resume();
    return error;
}

int spare_buf_reserve(struct rc_buf *buf, size_t more)
{
    refuse_pause();
    return spared(rc_buf_reserve(buf, more));
}

int spare_command_head(struct rc_buf *out, uint32_t argument_count)
{
    refuse_pause();
    return spared(rc_command_head(out, argument_count));
}

int spare_command_text(struct rc_buf *out, const char *text)
{
    refuse_pause();
    return spared(rc_command_text(out, text));
}

int spare_command_int(struct rc_buf *out, int64_t number)
{
    refuse_pause();
    return spared(rc_command_int(out, number));
}

int spare_lease_encode_end(struct rc_op *op, const char *head, size_t head_len, const char *tail,
                           size_t tail_len, int64_t ttl_ms)
{
    refuse_pause();
    return spared(rc_lease_encode_end(op, head, head_len, tail, tail_len, ttl_ms));
}

int spare_op_init(struct rc_op *op)
{
    refuse_pause();
    return spared(rc_op_init(op));
}

void spare_op_reset(struct rc_op *op, enum rc_op_kind kind)
{
    if (op->run.is_running)
        exit(1);
    rc_op_reset(op, kind);
}

int spare_engine_init(struct rc_engine *engine, const rc_options *options,
                      const struct rc_address *address, struct rc_near *near,
                      const struct rc_seed *seed, int64_t now_us)
{
    refuse_pause();
    return spared(rc_engine_init(engine, options, address, near, seed, now_us));
}
