#include "near/l0.h"

#include <string.h>

void rc_near_l0_init(const struct rc_near *near, rc_l0 *l0)
{
    const struct rc_region *region = &near->region;
    l0->changes = (const char *)&region->stripes[0].head->changes;
    l0->stride = 0;
    if (region->stripe_count > 1)
        l0->stride = (size_t)((const char *)&region->stripes[1].head->changes - l0->changes);
}

void rc_near_l0_see(const struct rc_near *near, struct rc_l0_place *place,
                    const rc_near_handle *handle)
{
    bool is_told = handle->changes != NULL && (handle->seen_changes & 1) == 0;
    place->deadline_us = handle->deadline_us;
    place->seen_changes = handle->seen_changes;
    /* Somebody was writing, or the handle is not one: it is asked the next time, too. */
    place->stamp = is_told ? handle->stamp : 0;
    place->stripe = (uint8_t)(rc_index_stripe(handle->hash) & (near->region.stripe_count - 1));
    place->has_block = handle->block != NULL;
}

/* NULL: none is free. */
static struct rc_l0_place *free_place(const rc_l0 *l0, const char *key, int which)
{
    struct rc_l0_place *place = rc_near_l0_bucket(l0, key, which);
    if (place->key == NULL)
        return place;
    return place[1].key == NULL ? place + 1 : NULL;
}

/* Moves one of a bucket to its other bucket. NULL: none can go. */
static struct rc_l0_place *make_place(const rc_l0 *l0, struct rc_l0_place *bucket)
{
    for (int i = 0; i < 2; i++) {
        int which = rc_near_l0_bucket(l0, bucket[i].key, 0) == bucket;
        struct rc_l0_place *other = free_place(l0, bucket[i].key, which);
        if (other != NULL) {
            *other = bucket[i];
            return &bucket[i];
        }
    }
    return NULL;
}

struct rc_l0_place *rc_near_l0_put(rc_l0 *l0, const char *key)
{
    struct rc_l0_place *place = rc_near_l0_find(l0, key);
    if (place != NULL)
        return place;
    place = free_place(l0, key, 0);
    if (place == NULL)
        place = free_place(l0, key, 1);
    if (place == NULL)
        place = make_place(l0, rc_near_l0_bucket(l0, key, 0));
    if (place == NULL)
        place = make_place(l0, rc_near_l0_bucket(l0, key, 1));
    if (place == NULL)
        return NULL;
    memset(place, 0, sizeof *place);
    place->key = key;
    l0->count++;
    return place;
}
