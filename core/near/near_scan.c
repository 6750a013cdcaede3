#include "near/near_own.h"

/* ---- sweep ----------------------------------------------------------------------------------- */

static uint32_t bucket_total(const struct rc_near *near)
{
    return near->region.stripe_count * near->region.shape.bucket_count;
}

/* The bucket with that number, and its stripe. */
static struct rc_index_bucket *bucket_at(struct rc_near *near, uint32_t number,
                                         struct rc_stripe **stripe)
{
    uint32_t per_stripe = near->region.shape.bucket_count;
    *stripe = &near->region.stripes[number / per_stripe];
    return &(*stripe)->buckets[number % per_stripe];
}

/* Without the mutex, and so perhaps wrong: worth taking the mutex? */
static bool seems_over(struct rc_near *near, const struct rc_stripe *stripe,
                       const struct rc_index_bucket *bucket, int64_t now_us)
{
    struct rc_near_peek peek;
    for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++)
        if (rc_near_peek(stripe, rc_index_ref(bucket, slot), &peek) &&
            now_us >= rc_block_time(rc_near_peek_ticks(&peek), near->region.shape.birth_us))
            return true;
    return false;
}

/* Under the mutex: why the entry in that block is about to go. */
static void note(const struct rc_stripe *stripe, uint32_t ref, int32_t cause, int64_t now_us)
{
    rc_journal_note(&stripe->shape->journal, rc_stripe_hash(stripe, ref), cause, now_us);
}

uint32_t rc_near_sweep(struct rc_near *near, uint32_t cursor, uint32_t buckets)
{
    int64_t now_us = rc_ticks_now_us(&near->ticks);
    uint32_t total = bucket_total(near);
    for (; buckets > 0 && cursor < total; buckets--, cursor++) {
        struct rc_stripe *stripe;
        struct rc_index_bucket *bucket = bucket_at(near, cursor, &stripe);
        if (!seems_over(near, stripe, bucket, now_us) || !rc_stripe_lock(stripe))
            continue;
        for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++) {
            uint32_t ref = rc_index_ref(bucket, slot);
            if (ref == 0)
                continue;
            if (!rc_stripe_has(stripe, ref))
                break;
            if (!rc_stripe_is_over(stripe, ref, now_us))
                continue;
            note(stripe, ref, RC_GONE_EXPIRED, now_us);
            rc_stripe_remove(stripe, (struct rc_index_spot){bucket, slot});
            rc_stripe_count(stripe, RC_STRIPE_EXPIRATIONS);
        }
        rc_stripe_unlock(stripe);
    }
    return cursor < total ? cursor : 0;
}

/* ---- slots that left ------------------------------------------------------------------------- */

static bool is_empty(const struct rc_index_bucket *bucket)
{
    for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++)
        if (rc_index_ref(bucket, slot) != 0)
            return false;
    return true;
}

/* Under the mutex. */
static void drop_slots_of(struct rc_stripe *stripe, struct rc_index_bucket *bucket,
                          const struct rc_slot_set *slots, int64_t now_us)
{
    for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++) {
        uint32_t ref = rc_index_ref(bucket, slot);
        if (ref == 0)
            continue;
        if (!rc_stripe_has(stripe, ref)) /* damaged: it has emptied itself */
            return;
        struct rc_block *block = rc_block_at(stripe->arena, ref);
        if (!rc_slot_set_has(slots, rc_slot(rc_block_key(block), block->key_len)))
            continue;
        rc_stripe_haunt(stripe, rc_stripe_hash(stripe, ref)); /* it is not cold for it */
        note(stripe, ref, RC_GONE_MOVED, now_us);
        rc_stripe_remove(stripe, (struct rc_index_spot){bucket, slot});
        rc_stripe_count(stripe, RC_STRIPE_INVALIDATIONS);
    }
}

uint32_t rc_near_drop_slots(struct rc_near *near, const struct rc_slot_set *slots, uint32_t cursor,
                            uint32_t buckets)
{
    uint32_t total = bucket_total(near), per_stripe = near->region.shape.bucket_count;
    for (; buckets > 0 && cursor < total; buckets--, cursor++) {
        struct rc_stripe *stripe;
        struct rc_index_bucket *bucket = bucket_at(near, cursor, &stripe);
        if (is_empty(bucket))
            continue;
        if (rc_stripe_lock(stripe)) {
            drop_slots_of(stripe, bucket, slots, rc_ticks_now_us(&near->ticks));
            rc_stripe_unlock(stripe);
        } else {
            rc_near_give_up(near, stripe);
            cursor += per_stripe - 1 - cursor % per_stripe; /* nothing of it is served any more */
        }
    }
    return cursor < total ? cursor : 0;
}

/* ---- revalidation ---------------------------------------------------------------------------- */

/* Whose entries are claimed: by their stamps. */
struct claimant {
    uint32_t stamp;        /* of the owner, now */
    uint32_t source_stamp; /* of the other one, now; 0: the owner's own */
};

static struct claimant claimant_of(const struct rc_near_owner *owner,
                                   const struct rc_near_owner *source)
{
    struct claimant claimant = {
        .stamp = atomic_load_explicit(&owner->stamp, memory_order_relaxed),
    };
    if (source != NULL)
        claimant.source_stamp = atomic_load_explicit(&source->stamp, memory_order_relaxed);
    return claimant;
}

static bool may_claim(const struct claimant *claimant, uint32_t stamp)
{
    if (claimant->source_stamp != 0)
        return stamp == claimant->source_stamp;
    return stamp != claimant->stamp && ((stamp ^ claimant->stamp) & (RC_NEAR_OWNERS - 1)) == 0;
}

struct harvest {
    struct rc_near_claim *claims;
    size_t count;
    struct claimant claimant;
    struct rc_buf *keys; /* has room for all keys of a bucket */
};

static void claim(struct harvest *harvest, struct rc_block *block)
{
    struct rc_buf *keys = harvest->keys;
    struct rc_near_claim *next = &harvest->claims[harvest->count++];
    next->key_at = (uint32_t)rc_buf_len(keys);
    next->key_len = block->key_len;
    memcpy(next->version, block->version, sizeof(next->version));
    memcpy(keys->bytes + keys->end, rc_block_key(block), block->key_len);
    keys->end += block->key_len;
}

/* Under the mutex. */
static void claim_bucket(struct rc_stripe *stripe, struct rc_index_bucket *bucket, uint32_t heat,
                         int64_t now_us, struct harvest *harvest)
{
    for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++) {
        struct rc_index_spot spot = {bucket, slot};
        uint32_t ref = rc_index_ref(bucket, slot);
        if (ref != 0 && !rc_stripe_has(stripe, ref))
            return;
        if (ref == 0 || !may_claim(&harvest->claimant, rc_block_at(stripe->arena, ref)->stamp))
            continue;
        struct rc_block *block = rc_block_at(stripe->arena, ref);
        bool is_over = rc_stripe_is_over(stripe, ref, now_us);
        bool is_plain = (block->kind & 7) == RC_KIND_PLAIN;
        if (is_plain && !is_over && harvest->claimant.source_stamp != 0)
            continue; /* it goes with its owner */
        if (is_over || is_plain) {
            rc_stripe_count(stripe, is_over ? RC_STRIPE_EXPIRATIONS : RC_STRIPE_INVALIDATIONS);
            note(stripe, ref, is_over ? RC_GONE_EXPIRED : RC_GONE_DOUBTFUL, now_us);
            if (!is_over)
                rc_stripe_haunt(stripe, rc_stripe_hash(stripe, ref));
            rc_stripe_remove(stripe, spot);
        } else if ((heat == RC_NEAR_ANY_HEAT || rc_index_heat(bucket, slot) == heat) &&
                   harvest->count < RC_NEAR_CLAIMS) {
            claim(harvest, block);
        }
    }
}

/* Without the mutex, and so perhaps wrong. */
static bool seems_claimable(const struct rc_stripe *stripe, const struct rc_index_bucket *bucket,
                            const struct claimant *claimant)
{
    struct rc_near_peek peek;
    for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++)
        if (rc_near_peek(stripe, rc_index_ref(bucket, slot), &peek) &&
            may_claim(claimant, rc_word_load32(&peek.block->stamp)))
            return true;
    return false;
}

size_t rc_near_claims(struct rc_near *near, const struct rc_near_owner *owner,
                      const struct rc_near_owner *source, int heat, uint32_t *cursor,
                      uint32_t buckets, struct rc_near_claim *claims, struct rc_buf *keys)
{
    int64_t now_us = rc_ticks_now_us(&near->ticks);
    uint32_t total = bucket_total(near);
    struct harvest harvest = {
        .claims = claims, .claimant = claimant_of(owner, source), .keys = keys};
    for (; buckets > 0 && *cursor < total; buckets--, ++*cursor) {
        struct rc_stripe *stripe;
        struct rc_index_bucket *bucket = bucket_at(near, *cursor, &stripe);
        if (!seems_claimable(stripe, bucket, &harvest.claimant))
            continue;
        /* A bucket is told as a whole, so that none of it is passed over. */
        if (harvest.count != 0 && RC_NEAR_CLAIMS - harvest.count < RC_INDEX_SLOTS)
            return harvest.count;
        if (rc_buf_reserve(keys, RC_INDEX_SLOTS * RC_NEAR_MAX_KEY) != 0)
            return harvest.count;
        if (rc_stripe_lock(stripe)) {
            claim_bucket(stripe, bucket, (uint32_t)heat, now_us, &harvest);
            rc_stripe_unlock(stripe);
        }
    }
    if (*cursor >= total)
        *cursor = 0;
    return harvest.count;
}

void rc_near_drop_claim(struct rc_near *near, const struct rc_near_owner *owner,
                        const struct rc_near_owner *source, const char *key, size_t len)
{
    uint64_t hash = rc_near_hash(near, key, len);
    struct rc_stripe *stripe = rc_near_stripe(near, hash);
    if (len > RC_NEAR_MAX_KEY || !rc_stripe_lock(stripe))
        return;
    struct claimant claimant = claimant_of(owner, source);
    struct rc_index_spot spot = rc_stripe_find(stripe, hash, key, len);
    if (spot.bucket != NULL && may_claim(&claimant, rc_stripe_block(stripe, spot)->stamp)) {
        rc_stripe_remove(stripe, spot);
        rc_stripe_haunt(stripe, hash);
        rc_stripe_count(stripe, RC_STRIPE_INVALIDATIONS);
        rc_journal_note(&stripe->shape->journal, hash, RC_GONE_DOUBTFUL,
                        rc_ticks_now_us(&near->ticks));
    }
    rc_stripe_unlock(stripe);
}

bool rc_near_confirm(struct rc_near *near, const struct rc_near_owner *owner,
                     const struct rc_near_owner *source, const char *key, size_t len,
                     const char version[8], int64_t deadline_us)
{
    uint64_t ticks = rc_block_ticks(deadline_us, near->region.shape.birth_us);
    bool is_confirmed = false;
    if (len > RC_NEAR_MAX_KEY ||
        rc_ticks_now_us(&near->ticks) >= rc_block_time(ticks, near->region.shape.birth_us))
        return false;
    uint64_t hash = rc_near_hash(near, key, len);
    struct rc_stripe *stripe = rc_near_stripe(near, hash);
    if (!rc_stripe_lock(stripe))
        return false;
    struct claimant claimant = claimant_of(owner, source);
    struct rc_index_spot spot = rc_stripe_find(stripe, hash, key, len);
    struct rc_block *block = spot.bucket != NULL ? rc_stripe_block(stripe, spot) : NULL;
    if (block != NULL && may_claim(&claimant, block->stamp) &&
        memcmp(block->version, version, sizeof(block->version)) == 0) {
        uint64_t old = block->deadline | (uint64_t)(block->kind >> 3) << 32;
        ticks = old < ticks ? old : ticks;
        rc_index_begin(spot.bucket);
        rc_word_store32(&block->stamp, claimant.stamp);
        rc_word_store32(&block->deadline, (uint32_t)ticks);
        rc_word_store8(&block->kind, (uint8_t)((block->kind & 7) | (ticks >> 32) << 3));
        rc_index_end(spot.bucket);
        rc_stripe_count(stripe, RC_STRIPE_REVALIDATIONS);
        is_confirmed = true;
    }
    rc_stripe_unlock(stripe);
    return is_confirmed;
}
