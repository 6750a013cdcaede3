/*
 * l0 - where a Lua state finds its decoded values: by the address of a key's string.
 *
 * What:    a place names a slot of the caller's and what a check mostly needs of the slot's handle:
 *          a hit touches one cache line here, and neither the bytes of its key nor the handle.
 *          A key may be in two buckets of two places each, which the compiler picks without a
 *          branch: a hash table that is as full as LuaJIT's has one that is mispredicted every
 *          third time, and what the processor has begun behind it, the reading of its counter above
 *          all, is done again.
 * Threads: one at a time.
 * Memory:  the caller's, who also keeps each string in its place for as long as its key is here.
 * Errors:  none: a key without a place is asked about by its handle.
 * Not:     no values, and no eviction.
 */
#ifndef RC_L0_H
#define RC_L0_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mutant.h"
#include "near/check.h"

/* Half a cache line. */
struct rc_l0_place {
    const char *key; /* NULL: free */
    int64_t deadline_us;
    uint32_t seen_changes; /* even: a count that is odd has no place, see rc_near_l0_see */
    uint32_t stamp;        /* 0, which no owner has: the handle is to be asked */
    uint32_t index;        /* of the handle */
    uint8_t stripe;
    uint8_t used;
    uint8_t has_block;
    uint8_t reserved;
};

_Static_assert(sizeof(struct rc_l0_place) == 32, "two of them in a cache line");
_Static_assert(RC_REGION_STRIPES <= UINT8_MAX + 1, "a byte holds the number of a stripe");

/* The first or the second bucket of a key: by the upper bits of a product, for strings lie at
   addresses that are multiples of eight. */
static inline struct rc_l0_place *rc_near_l0_bucket(const rc_l0 *l0, const char *key, int which)
{
    uint64_t factor = which == 0 ? UINT64_C(0x9e3779b97f4a7c15) : UINT64_C(0xc2b2ae3d27d4eb4f);
    return &l0->places[((uint64_t)(uintptr_t)key * factor >> l0->shift) * 2];
}

/* NULL: the key is not here. */
static inline struct rc_l0_place *rc_near_l0_find(const rc_l0 *l0, const char *key)
{
    struct rc_l0_place *place = rc_near_l0_bucket(l0, key, 0);
    place += place->key != key;
    if (__builtin_expect(place->key == key, 1))
        return place;
    place = rc_near_l0_bucket(l0, key, 1);
    place += place->key != key;
    return place->key == key ? place : NULL;
}

/* Whether something in the stripe of the place has changed since it was seen. */
static inline bool rc_near_l0_is_changed(const rc_l0 *l0, const struct rc_l0_place *place)
{
    /* Acquire: as in rc_near_changes_of. */
    const char *count = l0->changes + place->stripe * l0->stride;
    uint32_t changes =
        atomic_load_explicit((const _Atomic uint32_t *)(const void *)count, memory_order_acquire);
    return changes != place->seen_changes && !RC_MUTANT(L0_REMEMBERED);
}

static inline void rc_near_l0_use(struct rc_l0_place *place)
{
    if (place->used == 0) /* most are: its cache line stays clean */
        place->used = 1;
}

/* RC_VIEW_SOUND, if what the place tells is enough to say that the slot may be served; else the
   handle is to be asked. now_us was read before; the order is that of every check (check.h). */
static inline int rc_near_l0_check(struct rc_near *near, const rc_l0 *l0, struct rc_l0_place *place,
                                   int64_t now_us, int64_t max_stale_us)
{
    struct rc_near_standing standing =
        rc_near_standing_of(rc_region_owner(&near->region, place->stamp));
    if (rc_near_l0_is_changed(l0, place) ||
        !rc_near_is_good(&standing, place->stamp, place->deadline_us, now_us, max_stale_us))
        return RC_VIEW_GONE;
    rc_near_l0_use(place);
    return RC_VIEW_SOUND;
}

/* The owner of the place before, and what it has said: of many places in a row it is the same. All
   zero: none yet, for no owner has stamp 0. */
struct rc_near_l0_owner {
    uint32_t stamp;
    bool is_coherent;
};

/* rc_near_l0_check of one of many, as of the same moment. What an owner says of itself is read
   before the changes of its places: the order is that of every check, with more time in it. */
static inline int rc_near_l0_check_next(struct rc_near *near, const rc_l0 *l0,
                                        struct rc_l0_place *place, struct rc_near_l0_owner *owner,
                                        int64_t now_us, int64_t max_stale_us)
{
    if (place->stamp != owner->stamp) {
        struct rc_near_standing standing =
            rc_near_standing_of(rc_region_owner(&near->region, place->stamp));
        rc_near_touch(standing.owner, now_us, max_stale_us);
        owner->stamp = place->stamp;
        owner->is_coherent = rc_near_is_coherent(&standing, place->stamp, now_us, max_stale_us);
    }
    if (rc_near_l0_is_changed(l0, place) || !owner->is_coherent || now_us >= place->deadline_us)
        return RC_VIEW_GONE;
    rc_near_l0_use(place);
    return RC_VIEW_SOUND;
}

/* Takes over what a check needs of the handle that was just filled, or found valid. */
void rc_near_l0_see(const struct rc_near *near, struct rc_l0_place *place,
                    const rc_near_handle *handle);
void rc_near_l0_init(const struct rc_near *near, rc_l0 *l0);
/* A place for the key, where it has none yet. NULL: there is none to be had. */
struct rc_l0_place *rc_near_l0_put(rc_l0 *l0, const char *key);

#endif
