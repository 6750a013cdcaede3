/*
 * call - ops that are one request: a read, a write, a delete, any commands, a barrier.
 *
 * What:    sends the op's commands as they are and reads their answers into its result; the same
 *          for a read whose answer was fetched over T.
 * Threads: the engine's owner.
 * Memory:  owns nothing; what the op has encoded moves into its request.
 * Errors:  through the op: those of rc_link_send, RC_ERR_NOMEM, RC_ERR_REDIS, RC_ERR_TOOLARGE.
 * Not:     does not know the near cache: what an op writes or has read is the engine's to tell it.
 */
#ifndef RC_CALL_H
#define RC_CALL_H

#include "engine/context.h"
#include "engine/topology.h"

struct rc_calls {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_receiver fetched; /* takes what was fetched for a read */
};

void rc_calls_init(struct rc_calls *calls, struct rc_context *context,
                   struct rc_topology *topology);

/* How long an answer to the op may take. */
int64_t rc_call_timeout_ms(const struct rc_context *context, const struct rc_op *op);
/* Sends what the op has encoded; of a read, what reads its key. */
void rc_call_start(struct rc_calls *calls, struct rc_op *op);
/* RC_OP_BARRIER: its answer is behind all news up to when it was asked. */
void rc_call_start_barrier(struct rc_calls *calls, struct rc_op *op);

#endif
