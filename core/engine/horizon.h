/*
 * horizon - up to when the tracked connection is known coherent.
 *
 * What:    every answer on T moves the horizon to the time its request was sent: whatever Redis had
 *          acknowledged by then has been pushed to us before. But a server that has become a
 *          replica, or is another one, answers as well: so while near copies are read a heartbeat
 *          asks T's server, in one write with a PING, whether it still is what it was, and the
 *          horizon goes no further than one period beyond the last heartbeat that said so. Nobody
 *          reads: no heartbeat, and the first read after the pause goes to Redis, behind one.
 * Threads: the engine's owner.
 * Memory:  owns nothing but its timer.
 * Errors:  none: where nothing can be asked the horizon stands still, and copies grow stale.
 * Not:     drops nothing: pushes do.
 */
#ifndef RC_HORIZON_H
#define RC_HORIZON_H

#include "engine/context.h"
#include "engine/link.h"
#include "near/near.h"

struct rc_horizon {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_link *link; /* T */
    struct rc_near *near;
    struct rc_near_owner *owner;
    void (*on_watch)(struct rc_horizon *horizon); /* at each tick; NULL: nothing to do */

    /* Engine only. */
    struct rc_timer timer;
    bool is_watching;
    bool stays;       /* goes on watching where nobody reads: on_watch has reasons of its own */
    bool is_offered;  /* vouches though nobody reads: a taker may come in a moment */
    int64_t asked_us; /* when somebody asked for a copy, or had us watch for another reason */
    int64_t stuck_us; /* since when a PING is overdue; 0: none is */
    int64_t pace_us;  /* between two ticks; grows up to what the readers need */
    struct rc_req *heartbeat; /* the heartbeat under way, or NULL */
    int64_t heartbeat_us;     /* when the last one was sent */
    int64_t swept_us;
    uint32_t sweep_at;
};

int rc_horizon_init(struct rc_horizon *horizon, struct rc_context *context, struct rc_link *link,
                    struct rc_near *near, struct rc_near_owner *owner);
void rc_horizon_deinit(struct rc_horizon *horizon);
/* Somebody reads, or will: watch that the connection stays known coherent. */
void rc_horizon_watch(struct rc_horizon *horizon);
/* Others are about to take over what we keep: from now on we vouch for it, also without readers. */
void rc_horizon_offer(struct rc_horizon *horizon);
/* A PING whose answer brings all that was acknowledged before it was sent; with the heartbeat's
   question where the last one is too old. `done` as rc_req says. NULL: no memory. */
struct rc_req *rc_horizon_ping(struct rc_horizon *horizon);
/* How often a heartbeat is sent while somebody reads: a quarter of what the readers need. */
int64_t rc_horizon_period_us(const struct rc_horizon *horizon);
/* T has answered a request that was sent at sent_us: up to when it is known coherent. */
int64_t rc_horizon_reach(const struct rc_horizon *horizon, int64_t sent_us);

#endif
