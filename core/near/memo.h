/*
 * memo - entries whose tags were found valid, and what has to be unchanged for that to be so still.
 *
 * What:    a line says that the tags of one version of an entry had the generations of its block,
 *          by copies in stripes whose counts of changes stood there, which owners with these stamps
 *          had read, and which end at `until_us`. While all of that is so, the near cache knows of
 *          no other generations: a copy is neither dropped nor replaced without a change of its
 *          stripe's count. One cache line answers, where a check of three tags reads their block
 *          and a place of each.
 * Threads: one at a time.
 * Memory:  two ways of lines, in the memory of their user, zeroed. A line that is driven out of the
 *          first way goes into the second, where its place depends on other bits: entries that
 *          share a place in one way seldom share one in the other.
 * Errors:  none: what cannot be remembered has no line.
 * Not:     how the tags of an entry stand that has no line, or of which anything has changed
 *          (tags.c). For the files of the near cache alone.
 */
#ifndef RC_NEAR_MEMO_H
#define RC_NEAR_MEMO_H

#include <stdalign.h>

#include "base/mutant.h"
#include "near/check.h"

enum {
    RC_MEMO_WAY = 2048, /* lines */
    RC_MEMO_TAGS = 4,   /* of an entry; those with more have no line */
    RC_MEMO_LINE = 64   /* bytes */
};

struct rc_memo_line {
    uint64_t hash;    /* of the entry, and its version: as in its handle */
    int64_t until_us; /* the first of the copies ends; 0: no line */
    uint32_t version;
    uint32_t stale_ms; /* of the block */
    uint16_t size;     /* of the block */
    uint8_t generation;
    uint8_t count; /* of its tags */
    uint8_t stripes[RC_MEMO_TAGS];
    uint32_t seen_changes[RC_MEMO_TAGS];
    uint32_t stamps[RC_MEMO_TAGS];
};

_Static_assert(sizeof(struct rc_memo_line) == RC_MEMO_LINE, "one cache line");
_Static_assert(RC_REGION_STRIPES <= UINT8_MAX + 1, "a byte holds the number of a stripe");

struct rc_memo {
    alignas(RC_MEMO_LINE) struct rc_memo_line first[RC_MEMO_WAY];
    struct rc_memo_line second[RC_MEMO_WAY];
    struct rc_near *near;
    const char *counts; /* of changes, of the first stripe */
    size_t stride;      /* bytes from one stripe's to the next one's */
};

/* In zeroed memory. */
static inline void rc_memo_init(struct rc_memo *memo, struct rc_near *near)
{
    const struct rc_region *region = &near->region;
    memo->near = near;
    memo->counts = (const char *)&region->stripes[0].head->changes;
    if (region->stripe_count > 1)
        memo->stride = (size_t)((const char *)&region->stripes[1].head->changes - memo->counts);
}

static inline uint32_t rc_memo_changes(const struct rc_memo *memo, uint8_t stripe)
{
    /* Acquire: as in rc_near_changes_of. */
    const char *count = memo->counts + stripe * memo->stride;
    return atomic_load_explicit((const _Atomic uint32_t *)(const void *)count,
                                memory_order_acquire);
}

static inline struct rc_memo_line *rc_memo_first(struct rc_memo *memo, uint64_t hash)
{
    return &memo->first[(hash >> 32) % RC_MEMO_WAY];
}

static inline struct rc_memo_line *rc_memo_second(struct rc_memo *memo, uint64_t hash)
{
    return &memo->second[(hash >> 48) % RC_MEMO_WAY];
}

/* Whether what an owner has read with that stamp is coherent. */
static __attribute__((noinline)) bool rc_memo_is_coherent(struct rc_near *near, uint32_t stamp,
                                                          int64_t now_us, int64_t max_stale_us)
{
    struct rc_near_standing standing = rc_near_standing_of(rc_region_owner(&near->region, stamp));
    rc_near_touch(standing.owner, now_us, max_stale_us);
    return rc_near_is_coherent(&standing, stamp, now_us, max_stale_us);
}

/* The line of the entry, if all its tags are valid still; else NULL. The entry itself was just
   found coherent as of now_us: what has its stamp is so, too. The order of loads is that of every
   check (check.h): the owner, then the count. A line that is not the entry's may be gone through
   to the end: all that stands in it is harmless, and so there is one branch. */
static inline const struct rc_memo_line *rc_memo_find(struct rc_memo *memo,
                                                      const rc_near_handle *entry, int64_t now_us,
                                                      int64_t max_stale_us)
{
    const struct rc_memo_line *line = rc_memo_first(memo, entry->hash);
    if (line->hash != entry->hash)
        line = rc_memo_second(memo, entry->hash);
    uint64_t difference = (line->hash ^ entry->hash) | (line->version ^ entry->version) |
                          (uint64_t)(line->generation ^ entry->generation);
    for (uint32_t i = 0; i < line->count; i++) {
        if (line->stamps[i] != entry->stamp &&
            (difference != 0 ||
             !rc_memo_is_coherent(memo->near, line->stamps[i], now_us, max_stale_us)))
            return NULL;
        if (!RC_MUTANT(TAGS_REMEMBERED))
            difference |= rc_memo_changes(memo, line->stripes[i]) ^ line->seen_changes[i];
    }
    return difference == 0 && now_us < line->until_us ? line : NULL;
}

/* Begins a line, which rc_memo_add fills. */
static inline struct rc_memo_line rc_memo_begin(const rc_near_handle *entry, uint16_t size,
                                                uint32_t stale_ms)
{
    return (struct rc_memo_line){.hash = entry->hash,
                                 .version = entry->version,
                                 .generation = entry->generation,
                                 .until_us = INT64_MAX,
                                 .stale_ms = stale_ms,
                                 .size = size};
}

/* One of its tags, just found valid by that handle. Left out where a line cannot hold it: its count
   is less than the block's then. */
static inline void rc_memo_add(struct rc_memo_line *line, const struct rc_near *near,
                               const rc_near_handle *tag)
{
    /* A count that is odd, as somebody was writing, is not one that comes to stand still. */
    if (line->count == RC_MEMO_TAGS || (tag->seen_changes & 1) != 0)
        return;
    uint32_t stripe = rc_index_stripe(tag->hash) & (near->region.stripe_count - 1);
    line->stripes[line->count] = (uint8_t)stripe;
    line->seen_changes[line->count] = tag->seen_changes;
    line->stamps[line->count] = tag->stamp;
    line->count++;
    if (tag->deadline_us < line->until_us)
        line->until_us = tag->deadline_us;
}

static inline void rc_memo_note(struct rc_memo *memo, const struct rc_memo_line *line)
{
    struct rc_memo_line *place = rc_memo_first(memo, line->hash);
    struct rc_memo_line *second = rc_memo_second(memo, line->hash);
    if (place->hash != line->hash && second->hash == line->hash)
        place = second;
    else if (place->hash != line->hash && place->until_us != 0)
        *rc_memo_second(memo, place->hash) = *place;
    *place = *line;
}

#endif
