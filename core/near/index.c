#include "near/index.h"

static void store(struct rc_index_spot spot, uint32_t word)
{
    atomic_store_explicit(&spot.bucket->refs[spot.slot], word, memory_order_relaxed);
}

void rc_index_set_heat(struct rc_index_spot spot, uint32_t heat)
{
    store(spot, heat << RC_INDEX_HEAT_SHIFT | rc_index_ref(spot.bucket, spot.slot));
}

void rc_index_put(struct rc_index_spot spot, uint8_t tag, uint32_t ref, uint32_t heat)
{
    rc_word_store8(&spot.bucket->tags[spot.slot], tag);
    store(spot, heat << RC_INDEX_HEAT_SHIFT | ref);
}

void rc_index_clear(struct rc_index_spot spot)
{
    store(spot, 0);
}

struct rc_index_spot rc_index_find_ref(struct rc_index_bucket *buckets, uint32_t count,
                                       uint64_t hash, uint32_t ref)
{
    for (int choice = 0; choice < 2; choice++) {
        struct rc_index_bucket *bucket = rc_index_bucket(buckets, count, hash, choice);
        for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++)
            if (rc_index_ref(bucket, slot) == ref)
                return (struct rc_index_spot){bucket, slot};
    }
    return (struct rc_index_spot){NULL, 0};
}

static uint32_t count_empty(const struct rc_index_bucket *bucket, uint32_t *first)
{
    uint32_t empty = 0;
    for (uint32_t slot = RC_INDEX_SLOTS; slot-- > 0;)
        if (rc_index_ref(bucket, slot) == 0) {
            *first = slot;
            empty++;
        }
    return empty;
}

struct rc_index_spot rc_index_find_room(struct rc_index_bucket *buckets, uint32_t count,
                                        uint64_t hash)
{
    struct rc_index_bucket *a = rc_index_bucket(buckets, count, hash, 0);
    struct rc_index_bucket *b = rc_index_bucket(buckets, count, hash, 1);
    uint32_t slot_a = 0, slot_b = 0;
    uint32_t empty_a = count_empty(a, &slot_a), empty_b = count_empty(b, &slot_b);
    if (empty_a == 0 && empty_b == 0)
        return (struct rc_index_spot){NULL, 0};
    return empty_a >= RC_INDEX_SPARE || empty_a >= empty_b ? (struct rc_index_spot){a, slot_a}
                                                           : (struct rc_index_spot){b, slot_b};
}

void rc_index_reset(struct rc_index_bucket *bucket)
{
    uint32_t version = atomic_load_explicit(&bucket->version, memory_order_relaxed);
    /* Two steps from where a version is even: a reader that began before must not find it again. */
    atomic_store_explicit(&bucket->version, version | 1, memory_order_relaxed);
    rc_word_fence_release();
    for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++)
        store((struct rc_index_spot){bucket, slot}, 0);
    atomic_store_explicit(&bucket->version, (version | 1) + 1, memory_order_release);
}
