#include "near/evict.h"

enum {
    MOVES = 32, /* of entries that were read, before one has to go all the same */
    TRIES = 16  /* victims of the policy, before the room is cleared by force */
};

static struct rc_queue_pair *queues_of(struct rc_stripe *stripe, uint32_t group)
{
    return &stripe->head->queues[group];
}

static uint64_t share(const struct rc_stripe *stripe, const _Atomic uint64_t *bound)
{
    return atomic_load_explicit(bound, memory_order_relaxed) >> stripe->shape->shift;
}

static uint64_t entry_count(const struct rc_stripe *stripe)
{
    return atomic_load_explicit(&stripe->head->counters[RC_STRIPE_ENTRIES], memory_order_relaxed);
}

/* What is in a queue is an entry, and is in the index; NULL: damaged. */
static struct rc_index_spot spot_of(struct rc_stripe *stripe, uint32_t ref, uint64_t *hash)
{
    if (!rc_stripe_has(stripe, ref))
        return (struct rc_index_spot){NULL, 0};
    *hash = rc_stripe_hash(stripe, ref);
    struct rc_index_spot spot =
        rc_index_find_ref(stripe->buckets, stripe->shape->bucket_count, *hash, ref);
    if (spot.bucket == NULL)
        rc_stripe_damage(stripe);
    return spot;
}

/* Returns the hole; 0: damaged. */
static uint32_t evict(struct rc_stripe *stripe, struct rc_index_spot spot, uint64_t hash,
                      int64_t now_us)
{
    if (rc_stripe_block(stripe, spot)->queue == RC_QUEUE_SMALL)
        rc_stripe_haunt(stripe, hash);
    rc_stripe_count(stripe, RC_STRIPE_EVICTIONS);
    rc_journal_note(&stripe->shape->journal, hash, RC_GONE_EVICTED, now_us);
    return rc_stripe_remove(stripe, spot);
}

/* One entry of the group leaves. Returns its hole, 0: there is none, or it is damaged. */
static uint32_t evict_from(struct rc_stripe *stripe, uint32_t group, int64_t now_us)
{
    struct rc_queue_pair *queues = queues_of(stripe, group);
    for (int moves = 0;; moves++) {
        uint64_t hash;
        uint32_t ref = rc_queue_next(queues);
        if (ref == 0)
            return 0;
        struct rc_index_spot spot = spot_of(stripe, ref, &hash);
        if (spot.bucket == NULL)
            return 0;
        if (rc_stripe_is_over(stripe, ref, now_us)) {
            rc_stripe_count(stripe, RC_STRIPE_EXPIRATIONS);
            rc_journal_note(&stripe->shape->journal, hash, RC_GONE_EXPIRED, now_us);
            return rc_stripe_remove(stripe, spot);
        }
        uint32_t heat = rc_index_heat(spot.bucket, spot.slot);
        enum rc_queue_verdict verdict = rc_queue_judge(rc_stripe_block(stripe, spot)->queue, heat);
        if (moves == MOVES || verdict == RC_QUEUE_EVICT || verdict == RC_QUEUE_EVICT_REMEMBERED)
            return evict(stripe, spot, hash, now_us);
        if (!rc_stripe_move_to_main(stripe, ref))
            return 0;
        rc_index_set_heat(spot, verdict == RC_QUEUE_REPRIEVE ? heat - 1 : 0);
    }
}

/* Of what a group has here, the bytes beyond those that are kept for it. */
static uint64_t bytes_above(struct rc_stripe *stripe, uint32_t group)
{
    uint64_t bytes = rc_queue_bytes(queues_of(stripe, group));
    uint64_t kept = share(stripe, &stripe->bounds->min[group]);
    return bytes > kept ? bytes - kept : 0;
}

/* Where all groups have less than is kept for them: the largest. */
static uint32_t pick_group(struct rc_stripe *stripe)
{
    uint32_t count = atomic_load_explicit(&stripe->bounds->count, memory_order_relaxed);
    uint32_t above = RC_NEAR_GROUPS, largest = 0;
    uint64_t most = 0;
    for (uint32_t group = 0; group < count && group < RC_NEAR_GROUPS; group++) {
        uint64_t more = bytes_above(stripe, group);
        if (more > most) {
            most = more;
            above = group;
        }
        if (rc_queue_bytes(queues_of(stripe, group)) > rc_queue_bytes(queues_of(stripe, largest)))
            largest = group;
    }
    return above != RC_NEAR_GROUPS ? above : largest;
}

/* Entries leave one after the other behind `hole` until it is large enough, or from the arena's
   beginning where there is not enough behind it. */
static uint32_t clear_room(struct rc_stripe *stripe, uint32_t hole, size_t len, int64_t now_us)
{
    struct rc_arena *arena = &stripe->head->arena;
    uint32_t units = (uint32_t)((len + 7) / 8);
    if (hole == 0 || arena->end - (hole - 1) < units)
        hole = 1;
    while (hole - 1 < arena->top) {
        uint32_t ref = hole, word = rc_block_at(stripe->arena, ref)->word;
        if ((word & RC_ARENA_USED) == 0) {
            if ((word & RC_ARENA_UNITS) >= units)
                break;
            ref += word & RC_ARENA_UNITS; /* used: two free ones would have become one */
        }
        uint64_t hash;
        struct rc_index_spot spot = spot_of(stripe, ref, &hash);
        if (spot.bucket == NULL || (hole = evict(stripe, spot, hash, now_us)) == 0)
            return 0;
    }
    return rc_arena_alloc(arena, stripe->arena, len);
}

/* One entry of all leaves, where there must be one. Returns its hole, 0: damaged. */
static uint32_t evict_any(struct rc_stripe *stripe, int64_t now_us)
{
    uint32_t hole = evict_from(stripe, pick_group(stripe), now_us);
    if (hole == 0)
        rc_stripe_damage(stripe);
    return hole;
}

/* Room for that many bytes, 0, or RC_ARENA_DAMAGED. */
static uint32_t alloc(struct rc_stripe *stripe, uint8_t group, size_t len, int64_t now_us)
{
    struct rc_arena *arena = &stripe->head->arena;
    uint64_t max = share(stripe, &stripe->bounds->max[group]);
    uint32_t hole = 0, ref;
    while (max != 0 && rc_queue_bytes(queues_of(stripe, group)) + len + RC_ARENA_SMALLEST > max)
        if ((hole = evict_from(stripe, group, now_us)) == 0)
            break; /* it has none left */
    while (entry_count(stripe) >= stripe->shape->max_entries)
        if ((hole = evict_any(stripe, now_us)) == 0)
            return 0;
    for (int tries = 0; (ref = rc_arena_alloc(arena, stripe->arena, len)) == 0; tries++) {
        if (tries == TRIES)
            return clear_room(stripe, hole, len, now_us);
        if ((hole = evict_any(stripe, now_us)) == 0)
            return 0;
    }
    return ref;
}

/* The lowest goes first: what is kept for a group comes last, and before that the main queue. */
static uint32_t rank_of(struct rc_stripe *stripe, struct rc_index_spot spot)
{
    enum { MAIN = RC_INDEX_MAX_HEAT + 1, KEPT = 2 * MAIN };
    const struct rc_block *block = rc_stripe_block(stripe, spot);
    return rc_index_heat(spot.bucket, spot.slot) + (block->queue == RC_QUEUE_MAIN ? MAIN : 0) +
           (bytes_above(stripe, block->group) == 0 ? KEPT : 0);
}

/* Both buckets are full only by bad luck: the index has more places than there are entries. NULL:
   damaged. */
static struct rc_index_spot find_room(struct rc_stripe *stripe, uint64_t hash, int64_t now_us)
{
    uint32_t count = stripe->shape->bucket_count;
    struct rc_index_spot room = rc_index_find_room(stripe->buckets, count, hash);
    if (room.bucket != NULL)
        return room;
    uint32_t lowest = UINT32_MAX;
    for (int choice = 0; choice < 2; choice++)
        for (uint32_t slot = 0; slot < RC_INDEX_SLOTS; slot++) {
            struct rc_index_spot spot = {rc_index_bucket(stripe->buckets, count, hash, choice),
                                         slot};
            if (!rc_stripe_has(stripe, rc_index_ref(spot.bucket, slot)))
                return (struct rc_index_spot){NULL, 0};
            uint32_t rank = rank_of(stripe, spot);
            if (rank < lowest) {
                lowest = rank;
                room = spot;
            }
        }
    uint64_t victim = rc_stripe_hash(stripe, rc_index_ref(room.bucket, room.slot));
    if (evict(stripe, room, victim, now_us) == 0)
        room.bucket = NULL;
    return room;
}

uint32_t rc_evict_insert(struct rc_stripe *stripe, const struct rc_near_entry *entry,
                         uint32_t stamp, uint64_t ticks, int queue, uint32_t heat, int64_t now_us)
{
    size_t len = rc_block_len(entry->key_len, entry->value_len);
    uint32_t ref = alloc(stripe, entry->group, len, now_us);
    if (ref == RC_ARENA_DAMAGED)
        rc_stripe_damage(stripe);
    if (ref == 0 || rc_stripe_is_damaged(stripe))
        return 0;
    struct rc_index_spot spot = find_room(stripe, entry->hash, now_us);
    if (spot.bucket == NULL)
        return 0;
    rc_stripe_put(stripe, ref, spot, entry, stamp, ticks, queue, heat);
    return rc_stripe_is_damaged(stripe) ? 0 : ref;
}
