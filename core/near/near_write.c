#include <string.h>

#include "near/evict.h"
#include "near/near_own.h"

uint32_t rc_near_write_version(const struct rc_near *near, uint64_t hash)
{
    /* Acquire: nothing of the request that follows comes before it. */
    return atomic_load_explicit(rc_near_write_version_of(near, hash), memory_order_acquire);
}

uint8_t rc_near_group(struct rc_near *near, const char *prefix, size_t len, size_t min_bytes,
                      size_t max_bytes)
{
    return rc_region_group(&near->region, prefix, len, min_bytes, max_bytes);
}

void rc_near_set_ghosts(struct rc_near *near, bool has_ghosts)
{
    near->has_ghosts = has_ghosts;
}

/* ---- a key goes ------------------------------------------------------------------------------ */

static void note(struct rc_near *near, uint64_t hash, int32_t cause)
{
    rc_journal_note(&near->region.shape.journal, hash, cause, rc_ticks_now_us(&near->ticks));
}

/* A key stands in the index once. Where bytes of the region were damaged it may stand there twice,
   and the second entry would be served after its key was dropped: then the whole stripe goes. */
static void remove_only(struct rc_stripe *stripe, struct rc_index_spot spot, uint64_t hash,
                        const char *key, size_t len)
{
    rc_stripe_remove(stripe, spot);
    if (rc_stripe_find(stripe, hash, key, len).bucket != NULL)
        rc_stripe_damage(stripe);
}

/* ---- fill ------------------------------------------------------------------------------------ */

/* An entry in the place of an older one keeps its queue and counts as read once more: S3-FIFO takes
   an update for a hit. A new one that the ghost queue knows goes to the main queue. */
static bool replace(struct rc_stripe *stripe, const struct rc_near_entry *entry, uint32_t stamp,
                    uint64_t ticks, int64_t now_us)
{
    struct rc_index_spot old = rc_stripe_find(stripe, entry->hash, entry->key, entry->key_len);
    int queue = RC_QUEUE_SMALL;
    uint32_t heat = 0;
    if (old.bucket != NULL) {
        queue = rc_stripe_block(stripe, old)->queue;
        heat = rc_index_heat(old.bucket, old.slot);
        heat += heat < RC_QUEUE_HOTTEST ? 1 : 0;
        remove_only(stripe, old, entry->hash, entry->key, entry->key_len);
    } else if (rc_ghost_take(stripe->ghosts, stripe->shape->ghost_count, entry->hash)) {
        queue = RC_QUEUE_MAIN;
        rc_stripe_count(stripe, RC_STRIPE_GHOSTS);
    }
    bool is_stored = rc_evict_insert(stripe, entry, stamp, ticks, queue, heat, now_us) != 0;
    rc_stripe_count(stripe, is_stored ? RC_STRIPE_FILLS : RC_STRIPE_REFUSALS);
    if (!is_stored)
        rc_journal_note(&stripe->shape->journal, entry->hash, RC_GONE_REFUSED, now_us);
    return is_stored;
}

/* Whether what stands there is what the entry says. Plain values have no version of their own. */
static bool is_same(const struct rc_block *block, const struct rc_near_entry *entry)
{
    size_t value_at = RC_BLOCK_HEAD + rc_block_key_room(block->key_len);
    if ((block->kind & 7) != entry->kind ||
        rc_arena_len(block->word) - value_at != entry->value_len)
        return false;
    return entry->kind == RC_KIND_PLAIN
               ? memcmp((const char *)block + value_at, entry->value, entry->value_len) == 0
               : memcmp(block->version, entry->version, sizeof(entry->version)) == 0;
}

/* The answer may be older than a write, or than what stands there, or newer: nothing tells. So
   neither is kept, or a reader who was handed one of them could find the other one later, and see
   the key go back. Returns whether it is what stands there. */
static bool doom(struct rc_near *near, struct rc_stripe *stripe, const struct rc_near_entry *entry)
{
    struct rc_index_spot spot = rc_stripe_find(stripe, entry->hash, entry->key, entry->key_len);
    rc_stripe_count(stripe, RC_STRIPE_DOOMS);
    if (spot.bucket != NULL && is_same(rc_stripe_block(stripe, spot), entry))
        return true;
    note(near, entry->hash, RC_GONE_RACED);
    if (spot.bucket == NULL)
        return false;
    remove_only(stripe, spot, entry->hash, entry->key, entry->key_len);
    if (near->has_ghosts)
        rc_stripe_haunt(stripe, entry->hash);
    return false;
}

bool rc_near_fill(struct rc_near *near, const struct rc_near_owner *owner,
                  const struct rc_near_entry *entry, uint32_t write_version)
{
    struct rc_stripe *stripe = rc_near_stripe(near, entry->hash);
    uint64_t ticks = rc_block_ticks(entry->deadline_us, near->region.shape.birth_us);
    size_t max_len = rc_stripe_max_len(stripe, entry->group);
    int64_t now_us = rc_ticks_now_us(&near->ticks);
    bool is_over = now_us >= rc_block_time(ticks, near->region.shape.birth_us);
    bool is_too_long = entry->key_len > RC_NEAR_MAX_KEY || entry->value_len > max_len ||
                       rc_block_len(entry->key_len, entry->value_len) > max_len;
    if (is_over || is_too_long) { /* and no older one stays in its place */
        rc_near_drop(near, entry->key, entry->key_len, RC_NEAR_UNKEPT);
        if (is_too_long)
            rc_stripe_count(stripe, RC_STRIPE_REFUSALS);
        note(near, entry->hash, is_too_long ? RC_GONE_REFUSED : RC_GONE_EXPIRED);
        return false;
    }
    if (!rc_stripe_lock(stripe))
        return false;
    /* Acquire: before the count of writes. Who gives the stripe up (below) has counted its write,
       and then renews the stamps. */
    uint32_t stamp = atomic_load_explicit(&owner->stamp, memory_order_acquire);
    /* Behind the fence in rc_stripe_lock: see rc_near_drop. */
    bool is_doomed = atomic_load_explicit(rc_near_write_version_of(near, entry->hash),
                                          memory_order_relaxed) != write_version;
    /* Redis has not heard yet of all that was deleted here. */
    is_doomed |= rc_backlog_is_owed(&near->region.backlog);
    bool is_stored = false, is_there = false;
    if (is_doomed)
        is_there = doom(near, stripe, entry);
    else
        is_stored = replace(stripe, entry, stamp, ticks, now_us);
    /* Kept or not, it is handed out. An answer to an earlier request that comes in later, over
       another connection, must not be kept behind it: a reader would see the key go back. Relaxed:
       fills of a key meet under the mutex. */
    if (!is_there)
        atomic_fetch_add_explicit(rc_near_write_version_of(near, entry->hash), 1,
                                  memory_order_relaxed);
    rc_stripe_unlock(stripe);
    return is_stored;
}

bool rc_near_put_local(struct rc_near *near, struct rc_near_entry *entry, uint32_t returns,
                       const uint64_t *mark)
{
    struct rc_stripe *stripe = rc_near_stripe(near, entry->hash);
    uint64_t ticks = rc_block_ticks(entry->deadline_us, near->region.shape.birth_us);
    size_t max_len = rc_stripe_max_len(stripe, entry->group);
    int64_t now_us = rc_ticks_now_us(&near->ticks);
    memset(entry->version, 0, sizeof(entry->version));
    memcpy(entry->version, &returns, sizeof(returns));
    if (now_us >= rc_block_time(ticks, near->region.shape.birth_us) || entry->value_len > max_len ||
        rc_block_len(entry->key_len, entry->value_len) > max_len || !rc_stripe_lock(stripe))
        return false;
    /* A write that is counted behind this puts its own entry behind this one. */
    bool is_void = mark != NULL && rc_near_mark_of(near, entry->hash) != *mark;
    bool is_stored = !is_void && replace(stripe, entry, RC_NEAR_LOCAL_STAMP, ticks, now_us);
    rc_stripe_unlock(stripe);
    return is_stored;
}

bool rc_near_avoids(struct rc_near *near, uint64_t hash)
{
    if (!rc_avoid_is_on(&near->region.avoid, hash, rc_ticks_now_us(&near->ticks)))
        return false;
    rc_stripe_count(rc_near_stripe(near, hash), RC_STRIPE_AVOIDED);
    note(near, hash, RC_GONE_AVOIDED);
    return true;
}

void rc_near_count_doom(struct rc_near *near, uint64_t hash)
{
    rc_stripe_count(&near->region.stripes[0], RC_STRIPE_DOOMS);
    note(near, hash, RC_GONE_RACED);
}

/* ---- drop ------------------------------------------------------------------------------------ */

/* Without the mutex. True where it cannot be told. */
static bool may_have(struct rc_stripe *stripe, uint64_t hash, const char *key, size_t len)
{
    for (int choice = 0; choice < 2; choice++) {
        const struct rc_index_bucket *bucket =
            rc_index_bucket(stripe->buckets, stripe->shape->bucket_count, hash, choice);
        uint32_t version = rc_index_read(bucket);
        uint32_t matches = rc_index_matches(bucket, rc_index_tag(hash));
        if ((version & 1) != 0)
            return true;
        for (; matches != 0; matches &= matches - 1) {
            struct rc_near_peek peek;
            char found[RC_NEAR_MAX_KEY];
            if (!rc_near_peek(stripe, rc_index_ref(bucket, rc_index_first(matches)), &peek) ||
                peek.key_len != len)
                continue;
            rc_word_read(found, peek.key, len);
            if (len == 0 || memcmp(found, key, len) == 0)
                return true;
        }
        if (!rc_index_is_same(bucket, version))
            return true;
    }
    return false;
}

/* Returns whether what stood there had a version, and tells it where `version` is not NULL. */
static bool remove_key(struct rc_near *near, struct rc_stripe *stripe, uint64_t hash,
                       const char *key, size_t len, enum rc_near_cause cause, char *version)
{
    struct rc_index_spot spot = rc_stripe_find(stripe, hash, key, len);
    if (spot.bucket == NULL)
        return false;
    const struct rc_block *block = rc_stripe_block(stripe, spot);
    bool is_known = version != NULL && (block->kind & 7) != RC_KIND_PLAIN;
    int64_t now_us = rc_ticks_now_us(&near->ticks);
    bool is_over = rc_stripe_is_over(stripe, rc_index_ref(spot.bucket, spot.slot), now_us);
    if (is_known)
        memcpy(version, block->version, sizeof block->version);
    if (cause != RC_NEAR_UNKEPT && !is_over)
        rc_avoid_note(&near->region.avoid, hash, rc_index_heat(spot.bucket, spot.slot), now_us);
    remove_only(stripe, spot, hash, key, len);
    if (near->has_ghosts)
        rc_stripe_haunt(stripe, hash); /* it is not cold because it has changed */
    rc_stripe_count(stripe, cause == RC_NEAR_PUSH ? RC_STRIPE_INVALIDATIONS : RC_STRIPE_WRITES);
    if (cause != RC_NEAR_WRITE && is_over) /* Redis tells of expired keys, too */
        note(near, hash, RC_GONE_EXPIRED);
    else if (cause != RC_NEAR_WRITE)
        note(near, hash, cause == RC_NEAR_PUSH ? RC_GONE_CHANGED : RC_GONE_RACED);
    return is_known;
}

void rc_near_give_up(struct rc_near *near, struct rc_stripe *stripe)
{
    rc_stripe_abandon(stripe);
    rc_region_renew_all(&near->region);
}

/* After a drop but by RC_NEAR_PUSH, no fill is found whose `write_version` was read before. With W
   that version, and S the stripe's `writing`:

       drop:  W += 1;  fence;  if S or the key is there: lock and remove
       fill:  lock; S = 1;  fence;  if W is the same: publish;  S = 0; unlock

   Of the two fences (both sequentially consistent) one comes first. If it is the drop's, the fill
   sees W moved and stores nothing. If it is the fill's, the drop sees S = 1 and waits for the
   mutex, or it sees the 0 after that (acquire, with the release in rc_stripe_unlock), and then sees
   the entry.

   A drop by RC_NEAR_PUSH needs none of this: fills from the same connection are done by the thread
   that drops, and to those from others a push of their own is on its way. */
static bool drop(struct rc_near *near, const char *key, size_t len, enum rc_near_cause cause,
                 char *version)
{
    bool is_known = false;
    if (len > RC_NEAR_MAX_KEY)
        return false;
    uint64_t hash = rc_near_hash(near, key, len);
    struct rc_stripe *stripe = rc_near_stripe(near, hash);
    bool is_unsure = false;
    if (cause == RC_NEAR_WRITE) /* also where no copy stands: it is news of the key */
        note(near, hash, RC_GONE_WRITTEN);
    if (cause != RC_NEAR_PUSH) {
        /* Release: with the acquire in rc_near_write_version. */
        atomic_fetch_add_explicit(rc_near_write_version_of(near, hash), 1, memory_order_acq_rel);
        is_unsure = rc_stripe_is_changing(stripe);
    }
    if (!is_unsure && !may_have(stripe, hash, key, len))
        return false;
    if (rc_stripe_lock(stripe)) {
        is_known = remove_key(near, stripe, hash, key, len, cause, version);
        rc_stripe_unlock(stripe);
    } else { /* what cannot be removed must not be read */
        rc_near_give_up(near, stripe);
    }
    return is_known;
}

void rc_near_drop(struct rc_near *near, const char *key, size_t len, enum rc_near_cause cause)
{
    (void)drop(near, key, len, cause, NULL);
}

bool rc_near_drop_known(struct rc_near *near, const char *key, size_t len, char version[8])
{
    return drop(near, key, len, RC_NEAR_WRITE, version);
}
