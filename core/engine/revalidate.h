/*
 * revalidate - after a reconnect: which near copies are still what Redis holds.
 *
 * What:    asks for the header and the remaining life of every copy that was read over an earlier
 *          connection, the hottest first; what has the same version is served again, anything else
 *          is dropped. GETRANGE and PTTL make Redis track the key again. And the same for what
 *          another connection of this machine has read, which is about to end and offers it: its
 *          copies are served all the while, and change their owner.
 * Threads: the engine's owner.
 * Memory:  owns its batches while they are under way.
 * Errors:  a broken connection ends it; the next one starts it again. What it does not reach is not
 *          served and goes in time.
 * Not:     does not decide what is served meanwhile: the stamps do.
 */
#ifndef RC_REVALIDATE_H
#define RC_REVALIDATE_H

#include "engine/context.h"
#include "engine/link.h"
#include "near/near.h"

struct rc_revalidate {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_link *link; /* T */
    struct rc_near *near;
    struct rc_near_owner *owner;
    /* Whether what the link's server says of the key may be kept. */
    bool (*may_confirm)(const struct rc_link *link, const char *key, size_t len);

    /* Engine only. */
    struct rc_timer timer;        /* goes on looking for claims */
    bool is_leaving;              /* takes no offers: it makes one */
    struct rc_near_owner *source; /* who offers; NULL: our own copies */
    uint32_t seen_offers;
    uint64_t round; /* batches of an earlier one do not go on */
    int heat;       /* -1: nothing to do */
    uint32_t cursor;
    uint32_t under_way; /* batches of this round */
    uint32_t asked;
    uint32_t confirmed;
};

int rc_revalidate_init(struct rc_revalidate *revalidate, struct rc_context *context,
                       struct rc_link *link, struct rc_near *near, struct rc_near_owner *owner);
void rc_revalidate_deinit(struct rc_revalidate *revalidate); /* after the link's shutdown */
void rc_revalidate_start(struct rc_revalidate *revalidate);  /* from the beginning */
void rc_revalidate_stop(struct rc_revalidate *revalidate);
/* Its own copies are offered from now on: it takes no offers, and returns one that it has taken. */
void rc_revalidate_leave(struct rc_revalidate *revalidate);
/* Takes an offer, if there is one and nothing else to do. From time to time. */
void rc_revalidate_adopt(struct rc_revalidate *revalidate);

#endif
