/*
 * index - the hash table of one stripe: buckets of one cache line, each with a version.
 *
 * What:    twelve entries per bucket, two buckets per key. A word per entry holds its ref and how
 *          often it was read; a byte per entry tells most others apart without a look at them.
 * Threads: writers hold the stripe's mutex and keep the version odd while they change a bucket or
 *          what is read of its entries. A reader takes the version, reads, and believes it if the
 *          version is the same afterwards (seqlock). A block's memory is used again only after the
 *          version of its bucket has moved.
 *          Readers raise frequencies without any of that: by compare-and-swap of the word. It fails
 *          where the entry has changed, so that no reader, however long it slept, writes into what
 *          is not an entry any more.
 * Memory:  buckets lie in the stripe, given by the caller.
 * Errors:  a spot that is none: the key is not there, or both buckets are full.
 * Not:     keys are compared by who knows the blocks.
 * Source:  Boehm, MSPC 2012; Azar et al.: Balanced allocations, STOC 1994.
 */
#ifndef RC_INDEX_H
#define RC_INDEX_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "near/word.h"

enum { RC_INDEX_SLOTS = 12, RC_INDEX_SPARE = 2, RC_INDEX_HEAT_SHIFT = 30, RC_INDEX_MAX_HEAT = 3 };
#define RC_INDEX_REF UINT32_C(0x3fffffff) /* arena.h; 0: an empty place */

struct rc_index_bucket {
    alignas(64) _Atomic uint32_t version; /* odd: it is being changed */
    uint8_t tags[RC_INDEX_SLOTS];
    _Atomic uint32_t refs[RC_INDEX_SLOTS]; /* frequency << 30 | ref */
};
_Static_assert(sizeof(struct rc_index_bucket) == 64, "a bucket is one cache line");

/* Where an entry stands. */
struct rc_index_spot {
    struct rc_index_bucket *bucket; /* NULL: nowhere */
    uint32_t slot;
};

/* The parts of a hash. Multiplications take the high bits of theirs, so those of the two buckets,
   the tag and the stripe hardly overlap. */
static inline uint32_t rc_index_stripe(uint64_t hash)
{
    return (uint32_t)(hash >> 58);
}

static inline struct rc_index_bucket *rc_index_bucket(struct rc_index_bucket *buckets,
                                                      uint32_t count, uint64_t hash, int choice)
{
    uint32_t part = (uint32_t)(choice == 0 ? hash : hash >> 26);
    return &buckets[(uint64_t)part * count >> 32];
}

static inline uint8_t rc_index_tag(uint64_t hash)
{
    return (uint8_t)hash;
}

/* Frequency and ref. */
static inline uint32_t rc_index_word(const struct rc_index_bucket *bucket, uint32_t slot)
{
    return atomic_load_explicit(&bucket->refs[slot], memory_order_relaxed);
}

static inline uint32_t rc_index_ref(const struct rc_index_bucket *bucket, uint32_t slot)
{
    return rc_index_word(bucket, slot) & RC_INDEX_REF;
}

static inline uint32_t rc_index_heat(const struct rc_index_bucket *bucket, uint32_t slot)
{
    return rc_index_word(bucket, slot) >> RC_INDEX_HEAT_SHIFT;
}

/* ---- writers --------------------------------------------------------------------------------- */

/* Every store behind this is seen by a reader only together with the odd version: release, with the
   acquire in rc_index_is_same. Odd it is afterwards, whatever a damaged one was before. */
static inline void rc_index_begin(struct rc_index_bucket *bucket)
{
    uint32_t version = atomic_load_explicit(&bucket->version, memory_order_relaxed);
    atomic_store_explicit(&bucket->version, (version + 1) | 1, memory_order_relaxed);
    rc_word_fence_release();
}

/* Release: with rc_index_read. */
static inline void rc_index_end(struct rc_index_bucket *bucket)
{
    uint32_t version = atomic_load_explicit(&bucket->version, memory_order_relaxed);
    atomic_store_explicit(&bucket->version, version + 1, memory_order_release);
}

/* A reader's rise may get lost by this: no harm. */
void rc_index_set_heat(struct rc_index_spot spot, uint32_t heat);
/* Between begin and end. */
void rc_index_put(struct rc_index_spot spot, uint8_t tag, uint32_t ref, uint32_t heat);
void rc_index_clear(struct rc_index_spot spot);
/* Where the block `ref` of that hash stands. */
struct rc_index_spot rc_index_find_ref(struct rc_index_bucket *buckets, uint32_t count,
                                       uint64_t hash, uint32_t ref);
/* An empty place for that hash: in its first bucket, unless that has only one left; then in the
   emptier one. So four of five entries are in their first bucket where the index is three quarters
   full, and nearly all where it is emptier: a reader who finds one there needs no second line of
   memory, and its processor guesses right which way it goes. Both buckets are full three times in a
   thousand then, where the emptier one of the two was always taken twice in ten thousand. */
struct rc_index_spot rc_index_find_room(struct rc_index_bucket *buckets, uint32_t count,
                                        uint64_t hash);
/* Empties the bucket, in whatever state somebody died over it; its version moves on. Without the
   mutex where that cannot be had: who has it may put one more entry, or one back. */
void rc_index_reset(struct rc_index_bucket *bucket);

/* ---- readers --------------------------------------------------------------------------------- */

/* Acquire: with rc_index_end. Odd: try again. */
static inline uint32_t rc_index_read(const struct rc_index_bucket *bucket)
{
    return atomic_load_explicit(&bucket->version, memory_order_acquire);
}

/* Whether all that was read since is true. The load is an acquire, too, so that a clock that is
   read behind it is later than what it confirms. */
static inline bool rc_index_is_same(const struct rc_index_bucket *bucket, uint32_t version)
{
    rc_word_fence_acquire();
    return atomic_load_explicit(&bucket->version, memory_order_acquire) == version;
}

/* A bit for each place whose tag is that one, place 0 the lowest; and perhaps for a few others. */
static inline uint32_t rc_index_matches(const struct rc_index_bucket *bucket, uint8_t tag)
{
#if RC_WORD_WIDE
    /* Version and tags: the first 16 bytes. */
    __m128i bytes = rc_word_wide16((const char *)bucket);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)tag))) >> 4;
#else
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones << 7;
    uint64_t first = rc_word_load32(bucket->tags) ^ (uint32_t)(ones * tag);
    uint64_t others = rc_word_load64(bucket->tags + 4) ^ ones * tag;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    first = __builtin_bswap64(first) >> 32;
    others = __builtin_bswap64(others);
#endif
    /* The high bit of each byte that is zero; a borrow may mark more above it. */
    first = (first - ones) & ~first & (highs >> 32);
    others = (others - ones) & ~others & highs;
    /* Eight bits, each in a byte of its own, side by side. */
    const uint64_t gather = UINT64_C(0x0002040810204081);
    return (uint32_t)((first * gather >> 56 & 15) | (others * gather >> 56) << 4);
#endif
}

/* The place of the first bit. */
static inline uint32_t rc_index_first(uint32_t matches)
{
    return (uint32_t)__builtin_ctz(matches);
}

/* A shared store for the first three reads only. */
static inline void rc_index_heat_up(struct rc_index_bucket *bucket, uint32_t slot)
{
    uint32_t word = rc_index_word(bucket, slot);
    if (word >> RC_INDEX_HEAT_SHIFT < RC_INDEX_MAX_HEAT && (word & RC_INDEX_REF) != 0)
        atomic_compare_exchange_strong_explicit(&bucket->refs[slot], &word,
                                                word + (UINT32_C(1) << RC_INDEX_HEAT_SHIFT),
                                                memory_order_relaxed, memory_order_relaxed);
}

#endif
