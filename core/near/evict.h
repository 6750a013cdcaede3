/*
 * evict - who has to leave a stripe when room is needed.
 *
 * What:    S3-FIFO, per group: the group that is filled if it is over its share, otherwise the one
 *          that has most above what is kept for it. Where the policy's choices leave no hole of the
 *          wanted size, the neighbours of one are evicted, too.
 * Threads: under rc_stripe_lock.
 * Not:     looks at a bounded number of entries per victim, so that no caller pays for all the
 *          reads since the last one.
 */
#ifndef RC_EVICT_H
#define RC_EVICT_H

#include "near/stripe.h"

/* Room for that many bytes, or 0 where even an empty stripe had none. */
uint32_t rc_evict_and_alloc(struct rc_stripe *stripe, uint8_t group, size_t len);
/* An empty place in the index. */
struct rc_index_spot rc_evict_and_find_room(struct rc_stripe *stripe, uint64_t hash);

#endif
