#include "near/near_own.h"

/* Microseconds since the region's birth; a clock that stood behind it counts as then. */
static int64_t age_us(struct rc_near *near)
{
    int64_t age_us = rc_ticks_now_us(&near->ticks) - near->region.shape.birth_us;
    return age_us > 0 ? age_us : 0;
}

void rc_near_count_hits(struct rc_near *near, uint64_t hash, uint32_t hits)
{
    rc_sketch_count(&near->region.sketch, hash, hits / RC_HOT_SAMPLE, age_us(near));
}

bool rc_near_is_hot_asked(struct rc_near *near)
{
    return rc_sketch_is_asked(&near->region.sketch, age_us(near));
}

/* The key of an entry with that hash in one of its buckets. */
static bool find_in_bucket(const struct rc_near *near, const struct rc_stripe *stripe,
                           const struct rc_index_bucket *bucket, uint64_t hash, rc_hot_key *found)
{
    uint32_t version = rc_index_read(bucket);
    uint32_t matches = rc_index_matches(bucket, rc_index_tag(hash));
    for (; matches != 0; matches &= matches - 1) {
        struct rc_near_peek peek;
        if (!rc_near_peek(stripe, rc_index_ref(bucket, rc_index_first(matches)), &peek) ||
            peek.key_len > RC_NEAR_MAX_KEY)
            continue;
        rc_word_read(found->key, peek.key, peek.key_len);
        found->key_len = (uint32_t)peek.key_len;
        if (rc_mix(&near->region.shape.seed, found->key, peek.key_len) == hash &&
            rc_index_is_same(bucket, version & ~1u))
            return true;
    }
    return false;
}

/* Bounded: a bucket may be changed again and again. */
static bool find_key(struct rc_near *near, uint64_t hash, rc_hot_key *found)
{
    const struct rc_stripe *stripe = rc_near_stripe(near, hash);
    for (int tries = 0; tries < RC_NEAR_READ_TRIES; tries++)
        for (int choice = 0; choice < 2; choice++)
            if (find_in_bucket(
                    near, stripe,
                    rc_index_bucket(stripe->buckets, stripe->shape->bucket_count, hash, choice),
                    hash, found))
                return true;
    return false;
}

uint32_t rc_near_hot(struct rc_near *near, const char *prefix, size_t prefix_len, rc_hot_key *keys,
                     uint32_t max)
{
    struct rc_sketch_hot hottest[RC_SKETCH_PLACES];
    int64_t now_us = age_us(near);
    rc_sketch_ask(&near->region.sketch, now_us);
    uint32_t known = rc_sketch_hottest(&near->region.sketch, now_us, hottest);
    uint32_t count = 0;
    for (uint32_t i = 0; i < known && count < max; i++) {
        rc_hot_key *key = &keys[count];
        if (!find_key(near, hottest[i].hash, key) || key->key_len < prefix_len ||
            (prefix_len > 0 && memcmp(key->key, prefix, prefix_len) != 0))
            continue;
        key->key_len -= (uint32_t)prefix_len;
        memmove(key->key, key->key + prefix_len, key->key_len);
        key->hits = (uint64_t)hottest[i].count * RC_HOT_SAMPLE;
        count++;
    }
    return count;
}
