/*
 * fuse - the breaker of one node among its links: its timer, and its probes.
 *
 * What:    gives both links the breaker (breaker.h), probes the server over W with PINGs of its own
 *          while it is open, one at a time, and watches whether this process turns in time while
 *          requests are under way.
 * Threads: the engine's owner.
 * Memory:  the node's; the probe is the context's request. It never moves.
 * Errors:  RC_ERR_NOMEM from init. A probe without memory is tried again later.
 * Not:     refuses nobody: topology asks the link's breaker before it sends.
 */
#ifndef RC_FUSE_H
#define RC_FUSE_H

#include "engine/breaker.h"
#include "engine/link.h"

struct rc_fuse {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_link *commands;                /* W: probes go over it */
    struct rc_link *tracked;                 /* T */
    void (*on_closed)(struct rc_fuse *fuse); /* the breaker is closed again. NULL: nobody minds */

    /* Engine only. */
    bool is_on;
    struct rc_breaker breaker;
    struct rc_timer timer;
    int64_t due_us; /* when the timer is to fire */
    struct rc_req *probe;
};

/* Both links have been readied. Where the options want no breaker it costs nothing. */
int rc_fuse_init(struct rc_fuse *fuse, struct rc_context *context, struct rc_link *commands,
                 struct rc_link *tracked);
void rc_fuse_deinit(struct rc_fuse *fuse);
/* It is another server from now on: nothing is known of it. */
void rc_fuse_renew(struct rc_fuse *fuse);
/* Holds the breaker by hand, or lets it go. Whether there is one. */
bool rc_fuse_set_hold(struct rc_fuse *fuse, enum rc_breaker_hold hold);
/* A link can be used again. */
void rc_fuse_hurry(struct rc_fuse *fuse);

#endif
