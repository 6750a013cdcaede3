/*
 * avoid - keys that change more often than their near copies are read: readers may leave them out.
 *
 * What:    one word per place: 28 bits of the key's hash, a score, and until when the key is left
 *          out. A copy that nobody has read before its key changed adds one to the score, each read
 *          of one that was (three are known of) takes one off. At RC_AVOID_LIMIT the key is left
 *          out for RC_AVOID_US, and then tried again, with half of that score.
 * Threads: any, of any process: a word is stored and loaded as a whole. Two keys of one place may
 *          overwrite each other's.
 * Memory:  the places are the region's; a struct rc_avoid is a process's view of them.
 * Errors:  none: a damaged word leaves a key out, or tries one.
 * Not:     does not touch what is kept; engine/fetch.c asks before it reads.
 */
#ifndef RC_AVOID_H
#define RC_AVOID_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    RC_AVOID_LIMIT = 8,
    RC_AVOID_STEP_US = 62500,
    RC_AVOID_STEPS = 160, /* ten seconds */
    RC_AVOID_US = RC_AVOID_STEPS * RC_AVOID_STEP_US
};

struct rc_avoid {
    /* Fixed after init. */
    _Atomic uint64_t *places; /* a power of two of them; NULL: nothing is noted */
    uint32_t mask;
    int64_t birth_us;
};

static inline _Atomic uint64_t *rc_avoid_place(const struct rc_avoid *avoid, uint64_t hash)
{
    return &avoid->places[(uint32_t)(hash >> 12) & avoid->mask];
}

static inline uint32_t rc_avoid_step(const struct rc_avoid *avoid, int64_t now_us)
{
    return (uint32_t)((uint64_t)(now_us - avoid->birth_us) / RC_AVOID_STEP_US);
}

/* Whether a word, which says so, holds until then. No word that was stored says so for longer. */
static inline bool rc_avoid_holds(uint64_t word, uint32_t step)
{
    return (uint32_t)(word >> 32) - step - 1 < RC_AVOID_STEPS;
}

/* The key of that hash has changed; `reads` of the copy that goes are known of. */
static inline void rc_avoid_note(const struct rc_avoid *avoid, uint64_t hash, uint32_t reads,
                                 int64_t now_us)
{
    if (avoid->places == NULL)
        return;
    _Atomic uint64_t *place = rc_avoid_place(avoid, hash);
    uint32_t step = rc_avoid_step(avoid, now_us), until = 0;
    /* Relaxed: each word stands for itself. */
    uint64_t word = atomic_load_explicit(place, memory_order_relaxed);
    bool is_its_own = ((word >> 4) & 0xfffffff) == hash >> 36;
    uint32_t score = is_its_own ? (uint32_t)word & 15 : 0;
    if (!is_its_own && (reads > 0 || rc_avoid_holds(word, step)))
        return;
    if (reads > 0)
        score -= reads < score ? reads : score;
    else
        score++;
    if (score >= RC_AVOID_LIMIT) {
        score = RC_AVOID_LIMIT / 2;
        until = step + RC_AVOID_STEPS;
    } else if (is_its_own && rc_avoid_holds(word, step)) {
        until = (uint32_t)(word >> 32);
    }
    atomic_store_explicit(place, (uint64_t)until << 32 | (hash >> 36) << 4 | score,
                          memory_order_relaxed);
}

static inline bool rc_avoid_is_on(const struct rc_avoid *avoid, uint64_t hash, int64_t now_us)
{
    if (avoid->places == NULL)
        return false;
    uint64_t word = atomic_load_explicit(rc_avoid_place(avoid, hash), memory_order_relaxed);
    return ((word >> 4) & 0xfffffff) == hash >> 36 &&
           rc_avoid_holds(word, rc_avoid_step(avoid, now_us));
}

#endif
