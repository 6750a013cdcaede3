/*
 * fetch - reading a key over the tracked connection, and keeping the answer in the near cache.
 *
 * What:    one GET + PTTL per key, however many ask for it within 5 ms. The answer is kept unless
 *          the key may have changed since it was read: a push between the two answers, or a write
 *          of this machine since the request was made, dooms it; those who wait get it all the
 *          same, but nobody joins any more.
 * Threads: the engine's owner.
 * Memory:  owns the fetches; ops belong to their callers.
 * Errors:  handed to each op's receiver, as those of rc_link_send; RC_ERR_NOMEM.
 * Not:     decides nothing about loads: who has asked is told what was found.
 * Source:  the design of Redis' client side caching asks for the placeholder ("race conditions" in
 *          its documentation); here the open fetch is it.
 */
#ifndef RC_FETCH_H
#define RC_FETCH_H

#include "base/hash.h"
#include "engine/context.h"
#include "engine/topology.h"
#include "near/near.h"

struct rc_fetches {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_near *near;

    /* Engine only. */
    struct rc_table open; /* by key: those that may be joined */
    struct rc_list idle;  /* for the next use */
};

void rc_fetches_init(struct rc_fetches *fetches, struct rc_context *context,
                     struct rc_topology *topology, struct rc_near *near);
void rc_fetches_deinit(struct rc_fetches *fetches); /* after the links' shutdown */

/* Whether an answer can be kept: the connection is tracked, or will be. */
bool rc_fetch_is_possible(const struct rc_fetches *fetches, struct rc_op *op);
/* Starts or joins the read of the op's key. With RC_FRESH in its flags it joins nothing. */
void rc_fetch_start(struct rc_fetches *fetches, struct rc_op *op, struct rc_receiver *receiver,
                    int64_t timeout_ms);
void rc_fetch_leave(struct rc_op *op); /* the op is taken out (it is finished by the caller) */

/* Redis says over this link that the key changed; key NULL: all of them. */
void rc_fetches_push(struct rc_fetches *fetches, const struct rc_link *link, const char *key,
                     size_t len);

#endif
