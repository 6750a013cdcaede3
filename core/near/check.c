#include "near/check.h"

/* The bucket has changed: is it still the same entry? Takes over what may have changed of it. */
static bool find_again(struct rc_near *near, rc_near_handle *handle)
{
    struct rc_stripe *stripe = rc_near_stripe(near, handle->hash);
    struct rc_index_bucket *bucket = handle->bucket;
    struct rc_near_peek peek;
    char key[RC_NEAR_MAX_KEY];
    uint32_t version = rc_index_read(bucket);
    uint32_t ref = rc_index_ref(bucket, handle->slot);
    if ((version & 1) != 0 || ref != handle->ref || !rc_near_peek(stripe, ref, &peek) ||
        peek.generation != handle->generation || peek.key_len > RC_NEAR_MAX_KEY ||
        rc_word_load32(&peek.block->version[0]) != handle->version)
        return false;
    uint32_t stamp = rc_word_load32(&peek.block->stamp);
    uint64_t ticks = rc_near_peek_ticks(&peek);
    rc_word_read(key, peek.key, peek.key_len);
    if (rc_mix(&near->region.shape.seed, key, peek.key_len) != handle->hash ||
        !rc_index_is_same(bucket, version))
        return false;
    handle->bucket_version = version;
    handle->stamp = stamp;
    handle->deadline_us = rc_block_time(ticks, near->region.shape.birth_us);
    return true;
}

/* Bounded: a bucket may be changed again and again, or by somebody who died over it. */
int rc_near_check_bucket(struct rc_near *near, rc_near_handle *handle, int64_t now_us,
                         int64_t max_stale_us)
{
    for (int tries = 0; tries < RC_NEAR_READ_TRIES; tries++) {
        struct rc_near_standing standing =
            rc_near_standing_of(rc_region_owner(&near->region, handle->stamp));
        uint32_t changes = rc_near_changes_of(handle);
        if (rc_index_read(handle->bucket) == handle->bucket_version) {
            handle->seen_changes = changes;
            rc_index_heat_up(handle->bucket, handle->slot);
            return rc_near_is_served(handle, &standing, now_us, max_stale_us);
        }
        if (!find_again(near, handle))
            return 0;
    }
    return 0;
}
