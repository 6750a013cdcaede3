#include "near/near.h"

#include <stdlib.h>

#include "base/clock.h"
#include "near/check.h"

/* ---- regions and owners ---------------------------------------------------------------------- */

int rc_near_open(struct rc_near **near, const struct rc_near_options *options, const char **why)
{
    size_t line = 64, bytes = (sizeof(struct rc_near) + line - 1) / line * line;
    struct rc_near *opened = aligned_alloc(line, bytes);
    if (opened == NULL) {
        *why = "there is no memory";
        return RC_ERR_NOMEM;
    }
    memset(opened, 0, bytes);
    int error = rc_region_open(&opened->region, options, why);
    if (error != 0) {
        free(opened);
        return error;
    }
    rc_ticks_init(&opened->ticks, options->clock);
    opened->has_ghosts = true;
    atomic_init(&opened->references, 1);
    *near = opened;
    return 0;
}

void rc_near_ref(struct rc_near *near)
{
    /* Relaxed: every caller that asks for one more holds one already. */
    atomic_fetch_add_explicit(&near->references, 1, memory_order_relaxed);
}

void rc_near_close(struct rc_near *near)
{
    if (near == NULL || atomic_fetch_sub(&near->references, 1) > 1)
        return;
    rc_region_close(&near->region);
    free(near);
}

void rc_near_before_fork(struct rc_near *near)
{
    rc_region_before_fork(&near->region);
}

void rc_near_after_fork(struct rc_near *near)
{
    rc_region_after_fork(&near->region);
}

void rc_near_after_fork_in_child(struct rc_near *near)
{
    rc_region_after_fork_in_child(&near->region);
}

int rc_near_unlink(const char *name, size_t name_len)
{
    return rc_region_unlink(name, name_len);
}

uint64_t rc_near_hash(const struct rc_near *near, const char *key, size_t len)
{
    return rc_mix(&near->region.shape.seed, key, len);
}

int64_t rc_near_now_us(void)
{
    return rc_clock_us();
}

/* ---- who listens ----------------------------------------------------------------------------- */

void rc_near_tell(struct rc_near *near, int told, const char *key, size_t len)
{
    struct rc_ring *ring = &near->region.ring;
    if (rc_ring_is_heard(ring))
        rc_ring_write(ring, told, key, len, rc_ticks_now_us(&near->ticks));
}

void rc_near_listen(struct rc_near *near, rc_listener *listener)
{
    rc_ring_listen(&near->region.ring, listener, rc_ticks_now_us(&near->ticks));
}

bool rc_near_has_news(struct rc_near *near, rc_listener *listener)
{
    return rc_ring_has_news(&near->region.ring, listener, rc_ticks_now_us(&near->ticks)) != 0;
}

int rc_near_hear(struct rc_near *near, rc_listener *listener, const char *prefix, size_t prefix_len,
                 char *key, size_t *len)
{
    struct rc_ring *ring = &near->region.ring;
    for (;;) {
        int told = rc_ring_hear(ring, listener, key, len, rc_ticks_now_us(&near->ticks));
        if (told != RC_TOLD_PUSH && told != RC_TOLD_WRITE)
            return told;
        if (*len < prefix_len || (prefix_len > 0 && memcmp(key, prefix, prefix_len) != 0))
            continue; /* ends: others write no faster than this reads, or there is a gap */
        *len -= prefix_len;
        memmove(key, key + prefix_len, *len);
        return told;
    }
}

/* ---- owners ---------------------------------------------------------------------------------- */

struct rc_near_owner *rc_near_add_owner(struct rc_near *near, const char **why)
{
    const char *unasked;
    uint32_t reaped = atomic_load_explicit(&near->region.reaped, memory_order_relaxed);
    struct rc_near_owner *owner = rc_region_add_owner(&near->region, why != NULL ? why : &unasked);
    /* What a dead process had read, Redis no longer tells anybody. */
    if (atomic_load_explicit(&near->region.reaped, memory_order_relaxed) != reaped)
        rc_near_tell(near, RC_TOLD_GAP, NULL, 0);
    return owner;
}

void rc_near_remove_owner(struct rc_near *near, struct rc_near_owner *owner)
{
    bool was_coherent = rc_near_asof(owner) > 0;
    rc_region_remove_owner(&near->region, owner);
    if (was_coherent) /* what it had read, Redis no longer tells anybody */
        rc_near_tell(near, RC_TOLD_GAP, NULL, 0);
}

void rc_near_renew_owner(struct rc_near_owner *owner)
{
    uint32_t stamp = atomic_load_explicit(&owner->stamp, memory_order_relaxed);
    rc_region_renew(owner, stamp & (RC_NEAR_OWNERS - 1));
}

void rc_near_note(struct rc_near_owner *owner, uint64_t note, int64_t at_us)
{
    /* Only the owner's own thread stores it. Who reads the same time before and after the note has
       read the note of that time: times only grow. Sequentially consistent: it is seldom. */
    atomic_store(&owner->noted_us, 0);
    atomic_store(&owner->note, note);
    atomic_store(&owner->noted_us, at_us);
}

int64_t rc_near_noted_us(const struct rc_near *near, uint64_t server, uint64_t note)
{
    const struct rc_region *region = &near->region;
    int64_t latest_us = 0;
    for (uint32_t slot = 0; slot < region->owner_count; slot++) {
        const struct rc_near_owner *owner = &region->owners[slot];
        if (atomic_load_explicit(&owner->server, memory_order_relaxed) != server)
            continue;
        int64_t at_us = atomic_load(&owner->noted_us);
        if (at_us > latest_us && atomic_load(&owner->note) == note &&
            atomic_load(&owner->noted_us) == at_us)
            latest_us = at_us;
    }
    return latest_us;
}

void rc_near_set_asof(struct rc_near_owner *owner, int64_t asof_us)
{
    /* Only the owner's own thread stores it, and what it has not said itself (a time to come) does
       not count. Release: with the acquire of readers, who then see all that was dropped before. */
    int64_t said_us = atomic_load_explicit(&owner->asof_us, memory_order_relaxed);
    if (asof_us > said_us || said_us > asof_us + RC_NEAR_ASOF_AHEAD_US)
        atomic_store_explicit(&owner->asof_us, asof_us, memory_order_release);
}

/* A time that somebody else may have stored. Callers reckon with it. */
static int64_t load_time(const _Atomic int64_t *time_us)
{
    int64_t value = atomic_load_explicit(time_us, memory_order_relaxed);
    return value > 0 ? value : 0;
}

int64_t rc_near_asof(const struct rc_near_owner *owner)
{
    return load_time(&owner->asof_us);
}

int64_t rc_near_read_us(const struct rc_near_owner *owner)
{
    return load_time(&owner->read_us);
}

int64_t rc_near_need_us(const struct rc_near_owner *owner)
{
    return load_time(&owner->need_us);
}

void rc_near_forget_need(struct rc_near_owner *owner)
{
    atomic_store_explicit(&owner->need_us, INT64_MAX, memory_order_relaxed);
}

/* ---- handing over ---------------------------------------------------------------------------- */

void rc_near_name_owner(struct rc_near_owner *owner, uint64_t server)
{
    atomic_store_explicit(&owner->server, server, memory_order_relaxed);
}

void rc_near_offer(struct rc_near *near, struct rc_near_owner *owner)
{
    atomic_store_explicit(&owner->offer, RC_OFFER_OPEN, memory_order_relaxed);
    /* Release: with the acquire in rc_near_offers; who sees the count finds the offer. */
    atomic_fetch_add_explicit(&near->region.head->offers, 1, memory_order_release);
}

uint32_t rc_near_offers(const struct rc_near *near)
{
    return atomic_load_explicit(&near->region.head->offers, memory_order_acquire);
}

struct rc_near_owner *rc_near_take_offer(struct rc_near *near, const struct rc_near_owner *taker)
{
    uint64_t server = atomic_load_explicit(&taker->server, memory_order_relaxed);
    for (uint32_t slot = 0; slot < near->region.owner_count; slot++) {
        struct rc_near_owner *owner = &near->region.owners[slot];
        uint32_t open = RC_OFFER_OPEN;
        if (owner != taker && atomic_load_explicit(&owner->pid, memory_order_relaxed) != 0 &&
            atomic_load_explicit(&owner->server, memory_order_relaxed) == server &&
            atomic_compare_exchange_strong(&owner->offer, &open, RC_OFFER_TAKEN))
            return owner;
    }
    return NULL;
}

void rc_near_return_offer(struct rc_near *near, struct rc_near_owner *owner)
{
    uint32_t taken = RC_OFFER_TAKEN; /* no longer, where the slot has another owner */
    if (atomic_compare_exchange_strong(&owner->offer, &taken, RC_OFFER_OPEN))
        atomic_fetch_add_explicit(&near->region.head->offers, 1, memory_order_release);
}

void rc_near_end_offer(struct rc_near_owner *owner)
{
    uint32_t taken = RC_OFFER_TAKEN; /* no longer, where the slot has another owner */
    atomic_compare_exchange_strong(&owner->offer, &taken, RC_OFFER_ENDED);
}

bool rc_near_is_offer_ended(const struct rc_near_owner *owner)
{
    return atomic_load_explicit(&owner->offer, memory_order_relaxed) == RC_OFFER_ENDED;
}

/* ---- coherence ------------------------------------------------------------------------------- */

/* ---- lookup ---------------------------------------------------------------------------------- */

enum { AGAIN = -1 };

void rc_near_prefix_init(struct rc_near_prefix *prefix, const char *bytes, size_t len)
{
    prefix->room = prefix->whole = 0;
    if (len > RC_NEAR_MAX_KEY)
        return;
    prefix->room = RC_NEAR_MAX_KEY - len + 1;
    prefix->len = len;
    prefix->whole = len - (len & 7);
    prefix->part = rc_mix_part(bytes, len);
    rc_mix_copy(prefix->probe.bytes, bytes, prefix->whole);
}

static inline struct rc_index_bucket *second_of(const struct rc_near_pair *pair, uint64_t hash)
{
    return rc_index_bucket(pair->stripe->buckets, pair->stripe->bucket_count, hash, 1);
}

/* Where a key was found, if it was: in a bucket that had this version. */
struct place {
    struct rc_index_bucket *bucket;
    uint32_t version;
    uint32_t slot;
    uint32_t word; /* rc_index_word */
};

/* What is read from here on is true if the version is the same afterwards. */
static inline __attribute__((always_inline)) bool
find_in(const struct rc_stripe *stripe, struct rc_index_bucket *bucket,
        const struct rc_near_probe *probe, struct rc_near_peek *peek, struct place *place)
{
    place->bucket = bucket;
    place->version = rc_index_read(bucket);
    uint32_t matches = rc_index_matches(bucket, rc_index_tag(probe->hash));
    for (; matches != 0; matches &= matches - 1) {
        place->slot = rc_index_first(matches);
        place->word = rc_index_word(bucket, place->slot);
        if (rc_near_peek(stripe, place->word & RC_INDEX_REF, peek) && peek->key_len == probe->len &&
            rc_word_equals(peek->key, probe->bytes, peek->key_room))
            return true;
    }
    return false;
}

/* What nobody vouches for. */
static __attribute__((noinline)) int incoherent(const struct rc_near *near,
                                                const rc_near_handle *handle)
{
    if (handle->stamp != RC_NEAR_LOCAL_STAMP)
        return RC_NEAR_STALE;
    return handle->version == rc_near_returns(near) ? RC_NEAR_LOCAL : RC_NEAR_MISS;
}

/* Names what stands there, in a handle that is none until its `changes` are told. */
static inline __attribute__((always_inline)) void name_entry(const struct rc_near_peek *peek,
                                                             const struct place *place,
                                                             uint64_t hash, rc_near_handle *handle)
{
    handle->stamp = rc_word_load32(&peek->block->stamp);
    handle->bucket = place->bucket;
    handle->hash = hash;
    handle->version = rc_word_load32(&peek->block->version[0]);
    handle->bucket_version = place->version;
    handle->ref = place->word & RC_INDEX_REF;
    handle->slot = (uint8_t)place->slot; /* an entry keeps its place for life */
    handle->generation = peek->generation;
    handle->used = 0;
}

/* Copies what was found. RC_NEAR_*, or AGAIN: true or not is known only behind all loads. A version
   that was odd is equal to none: the key may come back behind it. */
static inline __attribute__((always_inline)) int
read_entry(struct rc_near *near, const struct rc_stripe *stripe, uint32_t changes,
           const struct rc_near_peek *peek, const struct place *place, uint64_t hash,
           int64_t now_us, int64_t max_stale_us, rc_near_value *value)
{
    rc_near_handle *handle = &value->handle;
    const struct rc_block *block = peek->block;
    name_entry(peek, place, hash, handle);
    value->data = value->buffer;
    value->len = peek->value_len;
    value->kind = peek->kind & 7;
    value->codec = rc_word_load8(&block->codec);
    value->entry_flags = rc_word_load8(&block->entry_flags);
    int64_t deadline_us = rc_block_time(rc_near_peek_ticks(peek), near->region.shape.birth_us);
    bool has_room = peek->value_len <= value->capacity;
    if (__builtin_expect(has_room, 1))
        rc_word_read(value->buffer, peek->key + peek->key_room, peek->value_len);
    uint32_t stamp = handle->stamp;
    struct rc_near_standing standing = rc_near_standing_of(rc_region_owner(&near->region, stamp));
    if (__builtin_expect(!rc_index_is_same(place->bucket, place->version & ~1u), 0))
        return AGAIN;
    handle->deadline_us = deadline_us;
    value->asof_us = standing.asof_us;
    value->left_us = deadline_us - now_us;
    if (now_us >= deadline_us)
        return RC_NEAR_MISS;
    rc_near_touch(standing.owner, now_us, max_stale_us);
    if (__builtin_expect(!has_room, 0)) /* none is larger than an eighth: it is damaged */
        return peek->value_len <= stripe->arena_bytes / 8 ? RC_NEAR_GROW : RC_NEAR_MISS;
    handle->changes = &stripe->head->changes;
    handle->seen_changes = changes; /* odd: never found again, so the bucket is looked at */
    if (__builtin_expect(!rc_near_is_coherent(&standing, stamp, now_us, max_stale_us), 0))
        return incoherent(near, handle);
    if (__builtin_expect(place->word >> RC_INDEX_HEAT_SHIFT < RC_INDEX_MAX_HEAT, 0))
        rc_index_heat_up(place->bucket, place->slot);
    return RC_NEAR_HIT;
}

/* Of a key that is not in its first bucket, which had that version: it may be in the second one. It
   may be moved from one to the other between two looks, but not without a change of both. */
static __attribute__((noinline)) int read_second(struct rc_near *near,
                                                 const struct rc_near_pair *pair,
                                                 uint32_t first_version, uint32_t changes,
                                                 const struct rc_near_probe *probe, int64_t now_us,
                                                 int64_t max_stale_us, rc_near_value *value)
{
    struct rc_near_peek peek;
    struct place place;
    struct rc_index_bucket *second = second_of(pair, probe->hash);
    if (find_in(pair->stripe, second, probe, &peek, &place))
        return read_entry(near, pair->stripe, changes, &peek, &place, probe->hash, now_us,
                          max_stale_us, value);
    return rc_index_is_same(pair->first, first_version & ~1u) &&
                   rc_index_is_same(second, place.version & ~1u)
               ? RC_NEAR_MISS
               : AGAIN;
}

static inline __attribute__((always_inline)) int
read_pair(struct rc_near *near, const struct rc_near_pair *pair, const struct rc_near_probe *probe,
          int64_t now_us, int64_t max_stale_us, rc_near_value *value)
{
    struct rc_near_peek peek;
    struct place place;
    uint32_t changes = atomic_load_explicit(&pair->stripe->head->changes, memory_order_acquire);
    if (find_in(pair->stripe, pair->first, probe, &peek, &place))
        return read_entry(near, pair->stripe, changes, &peek, &place, probe->hash, now_us,
                          max_stale_us, value);
    return read_second(near, pair, place.version, changes, probe, now_us, max_stale_us, value);
}

/* The bucket was changed meanwhile. */
static __attribute__((noinline)) int read_again(struct rc_near *near,
                                                const struct rc_near_pair *pair,
                                                const struct rc_near_probe *probe, int64_t now_us,
                                                int64_t max_stale_us, rc_near_value *value)
{
    for (int tries = 1; tries < RC_NEAR_READ_TRIES; tries++) {
        int outcome = read_pair(near, pair, probe, now_us, max_stale_us, value);
        if (outcome != AGAIN)
            return outcome;
    }
    return RC_NEAR_MISS;
}

int64_t rc_near_reader_us(struct rc_near *near)
{
    return rc_ticks_now_us(&near->ticks);
}

/* In a probe that begins with the prefix's whole words. False: such a key is not kept near. */
static inline __attribute__((always_inline)) bool
prepare(struct rc_near *near, const struct rc_near_prefix *prefix, const char *key, size_t key_len,
        struct rc_near_probe *probe, struct rc_near_pair *pair)
{
    if (key_len >= prefix->room)
        return false;
    size_t len = prefix->len + key_len;
    rc_mix_join(probe->bytes + prefix->whole, prefix->part, prefix->len & 7, key, key_len);
    uint64_t hash = rc_mix_joined(&near->region.shape.seed, probe->bytes, len);
    probe->len = len;
    probe->hash = hash;
    struct rc_stripe *stripe = rc_near_stripe(near, hash);
    pair->stripe = stripe;
    pair->first = rc_index_bucket(stripe->buckets, stripe->bucket_count, hash, 0);
    __builtin_prefetch(pair->first);
    return true;
}

static inline __attribute__((always_inline)) int
lookup(struct rc_near *near, const struct rc_near_pair *pair, const struct rc_near_probe *probe,
       int64_t now_us, int64_t max_stale_us, rc_near_value *value)
{
    int outcome = read_pair(near, pair, probe, now_us, max_stale_us, value);
    if (__builtin_expect(outcome != AGAIN, 1))
        return outcome;
    return read_again(near, pair, probe, now_us, max_stale_us, value);
}

/* The clock is read before anything that is there (check.h), but behind the hash: the bucket is on
   its way meanwhile. */
int rc_near_get(struct rc_near *near, struct rc_near_prefix *prefix, const char *key,
                size_t key_len, int64_t max_stale_us, rc_near_value *value)
{
    struct rc_near_pair pair;
    value->handle.changes = NULL; /* half of a handle must not pass for one */
    if (!prepare(near, prefix, key, key_len, &prefix->probe, &pair))
        return RC_NEAR_MISS;
    int64_t now_us = rc_ticks_now_us(&near->ticks);
    return lookup(near, &pair, &prefix->probe, now_us, max_stale_us, value);
}

int rc_near_get_at(struct rc_near *near, struct rc_near_prefix *prefix, const char *key,
                   size_t key_len, int64_t now_us, int64_t max_stale_us, rc_near_value *value)
{
    struct rc_near_pair pair;
    value->handle.changes = NULL; /* half of a handle must not pass for one */
    if (!prepare(near, prefix, key, key_len, &prefix->probe, &pair))
        return RC_NEAR_MISS;
    return lookup(near, &pair, &prefix->probe, now_us, max_stale_us, value);
}

int rc_near_lookup(struct rc_near *near, const char *bytes, size_t len, const char *key,
                   size_t key_len, int64_t max_stale_us, rc_near_value *value)
{
    struct rc_near_prefix prefix;
    rc_near_prefix_init(&prefix, bytes, len);
    return rc_near_get(near, &prefix, key, key_len, max_stale_us, value);
}

int rc_near_lookup_at(struct rc_near *near, const char *bytes, size_t len, const char *key,
                      size_t key_len, int64_t now_us, int64_t max_stale_us, rc_near_value *value)
{
    struct rc_near_prefix prefix;
    rc_near_prefix_init(&prefix, bytes, len);
    return rc_near_get_at(near, &prefix, key, key_len, now_us, max_stale_us, value);
}

/* ---- lookups of many keys -------------------------------------------------------------------- */

void rc_near_seek(struct rc_near *near, const struct rc_near_prefix *prefix, const char *key,
                  size_t key_len, struct rc_near_seek *seek)
{
    rc_mix_copy(seek->probe.bytes, prefix->probe.bytes, prefix->whole);
    if (prepare(near, prefix, key, key_len, &seek->probe, &seek->pair))
        __builtin_prefetch(second_of(&seek->pair, seek->probe.hash));
    else
        seek->pair.stripe = NULL;
}

void rc_near_seek_block(struct rc_near_seek *seek)
{
    struct rc_near_pair *pair = &seek->pair;
    if (pair->stripe == NULL)
        return;
    for (int choice = 0; choice < 2; choice++) {
        const struct rc_index_bucket *bucket =
            choice == 0 ? pair->first : second_of(pair, seek->probe.hash);
        uint32_t matches = rc_index_matches(bucket, rc_index_tag(seek->probe.hash));
        if (matches == 0)
            continue;
        /* Behind the first word: the key is there, and no ref wraps. */
        size_t at = (size_t)rc_index_ref(bucket, rc_index_first(matches)) * 8;
        if (at + 64 <= pair->stripe->shape->arena_bytes) {
            __builtin_prefetch(pair->stripe->arena + at);
            __builtin_prefetch(pair->stripe->arena + at + 64);
        }
        return;
    }
}

int rc_near_lookup_sought(struct rc_near *near, struct rc_near_seek *seek, int64_t now_us,
                          int64_t max_stale_us, rc_near_value *value)
{
    value->handle.changes = NULL; /* half of a handle must not pass for one */
    if (seek->pair.stripe == NULL)
        return RC_NEAR_MISS;
    return lookup(near, &seek->pair, &seek->probe, now_us, max_stale_us, value);
}

/* ---- handles --------------------------------------------------------------------------------- */

int rc_near_is_valid(struct rc_near *near, rc_near_handle *handle, int64_t max_stale_us)
{
    return rc_near_check(near, handle, rc_ticks_now_us(&near->ticks), max_stale_us);
}

int rc_near_is_valid_at(struct rc_near *near, rc_near_handle *handle, int64_t now_us,
                        int64_t max_stale_us)
{
    return rc_near_check(near, handle, now_us, max_stale_us);
}

/* ---- figures --------------------------------------------------------------------------------- */

void rc_near_read_stats(struct rc_near *near, rc_near_stats *stats)
{
    uint64_t sums[RC_STRIPE_COUNTERS] = {0};
    for (uint32_t i = 0; i < near->region.stripe_count; i++)
        for (int counter = 0; counter < RC_STRIPE_COUNTERS; counter++)
            sums[counter] += atomic_load_explicit(&near->region.stripes[i].head->counters[counter],
                                                  memory_order_relaxed);
    *stats = (rc_near_stats){
        .fills = sums[RC_STRIPE_FILLS],
        .dooms = sums[RC_STRIPE_DOOMS],
        .invalidations = sums[RC_STRIPE_INVALIDATIONS],
        .writes = sums[RC_STRIPE_WRITES],
        .evictions = sums[RC_STRIPE_EVICTIONS],
        .expirations = sums[RC_STRIPE_EXPIRATIONS],
        .ghosts = sums[RC_STRIPE_GHOSTS],
        .refusals = sums[RC_STRIPE_REFUSALS],
        .avoided = sums[RC_STRIPE_AVOIDED],
        .revalidations = sums[RC_STRIPE_REVALIDATIONS],
        .repairs = sums[RC_STRIPE_REPAIRS],
        .damaged = sums[RC_STRIPE_DAMAGED],
        .entries = sums[RC_STRIPE_ENTRIES],
        .bytes = sums[RC_STRIPE_BYTES],
        .capacity = near->region.shape.arena_bytes * near->region.stripe_count,
        .horizon_age_us = -1, /* who knows the owner knows that */
    };
}
