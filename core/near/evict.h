/*
 * evict - who has to leave a stripe when room is needed.
 *
 * What:    S3-FIFO, per group: the group that is filled if it is over its share, otherwise the one
 *          that has most above what is kept for it. Where the policy's choices leave no hole of the
 *          wanted size, the neighbours of one are evicted, too.
 * Threads: under rc_stripe_lock.
 * Memory:  the stripe's.
 * Errors:  a ref of 0: there is no room, or the stripe is damaged.
 * Not:     looks at a bounded number of entries per victim, so that no caller pays for all the
 *          reads since the last one.
 */
#ifndef RC_EVICT_H
#define RC_EVICT_H

#include "near/stripe.h"

/* Stores an entry that is not there yet, in whatever room that takes. A ref, or 0 where even an
   empty stripe had none, or this one is damaged. */
uint32_t rc_evict_insert(struct rc_stripe *stripe, const struct rc_near_entry *entry,
                         uint32_t stamp, uint64_t ticks, int queue, uint32_t heat, int64_t now_us);

#endif
