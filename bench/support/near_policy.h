/*
 * near_policy - the near cache itself as a policy of the hit-ratio bench.
 *
 * What:    one region with one stripe, and values of such a size that it holds a wanted number of
 *          entries.
 * Memory:  as of policy.h.
 * Errors:  a message, and exit.
 */
#ifndef RC_BENCH_NEAR_POLICY_H
#define RC_BENCH_NEAR_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/policy.h"

struct near_size {
    size_t bytes; /* of the region */
    size_t value_len;
    uint32_t capacity; /* entries it holds with such values: measured */
};

/* Finds the size that comes nearest to `wanted` entries. */
struct near_size near_size_for(uint32_t wanted);
/* key_ids: by key, borrowed. Without `ghosts_on_drop` a dropped key is forgotten. */
void policy_init_near(struct policy *policy, const struct near_size *size, const uint64_t *key_ids,
                      bool ghosts_on_drop);

#endif
