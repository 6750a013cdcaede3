/*
 * What is written while Redis is away: entries that nobody vouches for, and the deletes that Redis
 * is owed for them.
 */
#include <string.h>

#include "near/near_own.h"

void rc_near_set_single(struct rc_near *near, bool is_single)
{
    struct rc_region *region = &near->region;
    struct rc_backlog_head *head = region->backlog.head;
    atomic_store_explicit(&head->mode, is_single ? RC_BACKLOG_SINGLE : RC_BACKLOG_CLUSTER,
                          memory_order_relaxed);
    if (is_single || !rc_backlog_is_owed(&region->backlog) || !rc_region_lock(region))
        return;
    /* It was a single server when these were promised. */
    rc_backlog_pay(&region->backlog, atomic_load_explicit(&head->end, memory_order_relaxed));
    rc_region_unlock(region);
}

void rc_near_count_return(struct rc_near *near)
{
    atomic_fetch_add_explicit(&near->region.backlog.head->returns, 1, memory_order_release);
}

/* ---- writing --------------------------------------------------------------------------------- */

uint64_t rc_near_local_mark(struct rc_near *near, uint64_t hash)
{
    return rc_near_mark_of(near, hash);
}

static int promise(struct rc_near *near, const struct rc_near_entry *entry)
{
    struct rc_region *region = &near->region;
    if (!rc_region_lock(region))
        return RC_ERR_OVERLOAD;
    bool is_added = rc_backlog_add(&region->backlog, entry->hash, entry->key, entry->key_len);
    rc_region_unlock(region);
    return is_added ? 0 : RC_ERR_OVERLOAD;
}

/* Between a write and its entry stands the promise: who fills from Redis from then on sees it
   (rc_near_fill), and what was filled before is dropped behind it. */
int rc_near_write_local(struct rc_near *near, struct rc_near_entry *entry)
{
    uint32_t mode = atomic_load_explicit(&near->region.backlog.head->mode, memory_order_relaxed);
    if (mode != RC_BACKLOG_SINGLE || entry->key_len > RC_NEAR_MAX_KEY)
        return RC_ERR_UNAVAILABLE;
    uint32_t returns = rc_near_returns(near);
    int error = promise(near, entry);
    if (error != 0)
        return error;
    /* Release: with the acquire in rc_near_local_mark. A load that began before keeps nothing. */
    atomic_fetch_add_explicit(rc_backlog_writes(&near->region.backlog, entry->hash), 1,
                              memory_order_acq_rel);
    rc_near_drop(near, entry->key, entry->key_len, RC_NEAR_WRITE);
    return rc_near_put_local(near, entry, returns, NULL) ? 0 : 1;
}

bool rc_near_keep_local(struct rc_near *near, struct rc_near_entry *entry, uint64_t mark)
{
    return entry->key_len <= RC_NEAR_MAX_KEY &&
           rc_near_put_local(near, entry, (uint32_t)(mark >> 32), &mark);
}

bool rc_near_has_local(struct rc_near *near, const char *key, size_t len)
{
    uint64_t hash = rc_near_hash(near, key, len);
    struct rc_stripe *stripe = rc_near_stripe(near, hash);
    bool has_local = false;
    if (len > RC_NEAR_MAX_KEY || !rc_stripe_lock(stripe))
        return false;
    struct rc_index_spot spot = rc_stripe_find(stripe, hash, key, len);
    if (spot.bucket != NULL) {
        const struct rc_block *block = rc_stripe_block(stripe, spot);
        has_local =
            block->stamp == RC_NEAR_LOCAL_STAMP && block->version[0] == rc_near_returns(near);
    }
    rc_stripe_unlock(stripe);
    return has_local;
}

/* ---- what Redis is owed ---------------------------------------------------------------------- */

const _Atomic uint64_t *rc_near_owed(const struct rc_near *near)
{
    return &near->region.backlog.head->end;
}

size_t rc_near_read_owed(struct rc_near *near, uint64_t *at, char *into, size_t room)
{
    size_t copied = 0;
    if (!rc_backlog_is_owed(&near->region.backlog)) {
        *at = atomic_load_explicit(&near->region.backlog.head->end, memory_order_acquire);
    } else if (rc_region_lock(&near->region)) {
        copied = rc_backlog_read(&near->region.backlog, at, into, room);
        rc_region_unlock(&near->region);
    }
    return copied;
}

void rc_near_pay(struct rc_near *near, uint64_t to)
{
    if (!rc_region_lock(&near->region))
        return; /* the next connection sends them again */
    rc_backlog_pay(&near->region.backlog, to);
    rc_region_unlock(&near->region);
}

bool rc_near_is_owed(const struct rc_near *near)
{
    return rc_backlog_is_owed(&near->region.backlog);
}
