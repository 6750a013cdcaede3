/*
 * horizon - up to when the tracked connection is known coherent.
 *
 * What:    every answer on T moves the horizon to the time its request was sent: whatever Redis had
 *          acknowledged by then has been pushed to us before. While near copies are read and T has
 *          nothing else to say, a PING does it. Nobody reads: no PING, and the first read after the
 *          pause goes to Redis.
 * Threads: the engine's owner.
 * Memory:  owns nothing but its timer.
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
    int64_t stuck_us; /* since when a PING is overdue; 0: none is */
    int64_t pace_us;  /* between two ticks; grows up to what the readers need */
    int64_t swept_us;
    uint32_t sweep_at;
};

int rc_horizon_init(struct rc_horizon *horizon, struct rc_context *context, struct rc_link *link,
                    struct rc_near *near, struct rc_near_owner *owner);
void rc_horizon_deinit(struct rc_horizon *horizon);
/* Somebody reads, or will: watch that the connection stays known coherent. */
void rc_horizon_watch(struct rc_horizon *horizon);
/* A PING for its answer's sake: `done` as rc_req says. NULL: no memory. */
struct rc_req *rc_horizon_ping(struct rc_horizon *horizon);

#endif
