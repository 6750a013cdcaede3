/*
 * call - ops that are commands: a read, a write, a delete, any commands and scripts, a barrier.
 *
 * What:    sends the op's commands as they are, in one request, and reads their answers into its
 *          result; the same for a read whose answer was fetched over T. Only where the keys of a
 *          call are of several servers it goes in parts, one request to each of them, and the
 *          answers are put together in the order asked (plan.h). Within a server commands run in
 *          the order asked; between servers there is no order, and a part that fails gives its
 *          error to its own commands, not to the others: "the outcome is unknown" is said of that
 *          part alone. The call fails where every part does. A script that Redis has forgotten was
 *          not run, nor was a command whose slot is elsewhere: it is sent again, with its source or
 *          there, behind the commands of its batch, so what stood behind it has run before it. What
 *          depends on such an order belongs into one script. Several of them keep their order. A
 *          transaction goes as a whole. What a replica may answer goes to one, if one can be asked;
 *          what that has not answered in its time, or with an error, goes to the master. Equal
 *          reads of a burst are one request (burst.h), which goes on as long as one of them waits.
 *          Where its answer is large the others ask each for itself then.
 * Threads: the engine's owner.
 * Memory:  what the op has encoded moves into its request; owns what is gathered of several.
 * Errors:  through the op: those of rc_link_send, RC_ERR_NOMEM, RC_ERR_REDIS, RC_ERR_TOOLARGE. Of
 *          a part: a '-' in the answer, whose `integer` is the RC_ERR_*.
 * Not:     does not know the near cache: what an op writes or has read is the engine's to tell it.
 */
#ifndef RC_CALL_H
#define RC_CALL_H

#include "engine/burst.h"
#include "engine/cluster.h"
#include "engine/context.h"
#include "engine/replicas.h"
#include "engine/topology.h"

struct rc_calls {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_cluster *cluster;
    struct rc_replicas *replicas;
    struct rc_receiver fetched; /* takes what was fetched for a read */

    /* Engine only. */
    struct rc_gather *spare; /* of a call that has ended, for its room; NULL: none */
    struct rc_burst burst;
};

void rc_calls_init(struct rc_calls *calls, struct rc_context *context, struct rc_topology *topology,
                   struct rc_cluster *cluster, struct rc_replicas *replicas);
void rc_calls_deinit(struct rc_calls *calls); /* no op runs any more */

/* How long an answer to the op may take. */
int64_t rc_call_timeout_ms(const struct rc_context *context, const struct rc_op *op);
/* Sends what the op has encoded; of a read, what reads its key. */
void rc_call_start(struct rc_calls *calls, struct rc_op *op);
/* Sends what reads the op's key to a replica. What that says goes to the receiver; where it has not
   answered in its time, or with an error, as RC_ERR_UNAVAILABLE. False: none can be asked. */
bool rc_call_ask_replica(struct rc_calls *calls, struct rc_op *op, struct rc_receiver *receiver,
                         int64_t deadline_us);
/* The op ends, and its request goes on for others that share it. False: nobody does. */
bool rc_call_leave_to_others(struct rc_op *op);
/* Forgets what was sent in parts for the op: it ends. */
void rc_call_leave(struct rc_op *op);
/* Reads the answers to the op's commands into its result; swaps them away. */
void rc_call_take_answer(struct rc_op *op, struct rc_reply *reply);
/* RC_OP_BARRIER: its answer is behind all news up to when it was asked. */
void rc_call_start_barrier(struct rc_calls *calls, struct rc_op *op);

#endif
