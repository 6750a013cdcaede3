/*
 * near_own - what the files of the near cache share: near.c (reading), near_write.c, near_scan.c,
 * near_local.c.
 *
 * What:    a process's mapping, a reader's look at a block, and which stripe and count a hash
 *          belongs to.
 * Threads: a struct rc_near is constant after rc_near_open, but for its ticks and the switch of
 *          the bench.
 * Memory:  what rc_near_peek looks at may be recycled at any moment: each word is loaded once, and
 *          checked before it is used. What it tells is true if the bucket's version is still the
 *          same afterwards.
 * Errors:  false: what stands there cannot be a block.
 * Not:     for the files of the near cache alone; the simulator's oracle looks, too.
 */
#ifndef RC_NEAR_OWN_H
#define RC_NEAR_OWN_H

#include "near/region.h"
#include "near/ticks.h"

enum { RC_NEAR_READ_TRIES = 4 };

struct rc_near {
    struct rc_region region;
    struct rc_ticks ticks;
    bool has_ghosts; /* benches only: drops are remembered */
    _Atomic unsigned references;
};

/* A block as a reader saw it. */
struct rc_near_peek {
    const struct rc_block *block;
    const char *key;
    size_t key_len;
    size_t key_room;
    size_t value_len;
    uint8_t generation;
    uint8_t kind; /* with bits of the deadline */
};

static inline struct rc_stripe *rc_near_stripe(struct rc_near *near, uint64_t hash)
{
    return &near->region.stripes[rc_index_stripe(hash) & (near->region.stripe_count - 1)];
}

static inline _Atomic uint32_t *rc_near_write_version_of(const struct rc_near *near, uint64_t hash)
{
    return &near->region.write_versions[(uint32_t)(hash >> 20) & near->region.write_versions_mask];
}

/* Nobody gives the stripe's mutex back: it is damaged, or its holder stands still, perhaps in the
   middle of putting an entry. What is there goes out of sight, and whatever has a stamp by now is
   not served any more: what cannot be removed must not be read. */
void rc_near_give_up(struct rc_near *near, struct rc_stripe *stripe);

/* Puts a local entry in the place of what stood there, written between those returns of Redis. mark
   NULL: a write; else of a load, which keeps nothing where the key was written since. */
bool rc_near_put_local(struct rc_near *near, struct rc_near_entry *entry, uint32_t returns,
                       const uint64_t *mark);
/* How often Redis has come back: the version of what is written here begins with it. */
static inline uint32_t rc_near_returns(const struct rc_near *near)
{
    /* Acquire: with the release in rc_backlog_pay and rc_near_count_return. */
    return atomic_load_explicit(&near->region.backlog.head->returns, memory_order_acquire);
}
/* That, and how often keys of the hash were written here. */
static inline uint64_t rc_near_mark_of(const struct rc_near *near, uint64_t hash)
{
    return (uint64_t)rc_near_returns(near) << 32 |
           atomic_load_explicit(rc_backlog_writes(&near->region.backlog, hash),
                                memory_order_acquire);
}

/* False: no block with a header, a key and a value can be there. Always inlined: what a reader does
   not ask of it is not worked out. */
static inline __attribute__((always_inline)) bool
rc_near_peek(const struct rc_stripe *stripe, uint32_t ref, struct rc_near_peek *peek)
{
    struct {
        uint8_t generation, kind;
        uint16_t key_len;
    } names;
    /* ref 0 becomes a place behind any arena: below 2^32 it is counted in 32 bits. */
    size_t at = (size_t)(ref - 1) * 8, arena_bytes = stripe->arena_bytes;
    if (at + RC_BLOCK_HEAD > arena_bytes)
        return false;
    const struct rc_block *block = (const void *)(stripe->arena + at);
    uint32_t word = rc_word_load32(&block->word);
    uint32_t packed = rc_word_load32(&block->generation);
    memcpy(&names, &packed, sizeof(names));
    size_t bytes = rc_arena_bytes(word), room = rc_block_key_room(names.key_len);
    /* What is left for the value, which is a huge number where there is less than nothing. */
    size_t value_len = rc_arena_len(word) - RC_BLOCK_HEAD - room;
    if (bytes > arena_bytes - at || value_len > arena_bytes)
        return false;
    *peek = (struct rc_near_peek){
        .block = block,
        .key = (const char *)block + RC_BLOCK_HEAD,
        .key_len = names.key_len,
        .key_room = room,
        .value_len = value_len,
        .generation = names.generation,
        .kind = names.kind,
    };
    return true;
}

static inline uint64_t rc_near_peek_ticks(const struct rc_near_peek *peek)
{
    return rc_word_load32(&peek->block->deadline) | (uint64_t)(peek->kind >> 3) << 32;
}

#endif
