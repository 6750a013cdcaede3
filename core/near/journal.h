/*
 * journal - why keys are not near any more: the last of them.
 *
 * What:    one word per place: 28 bits of the key's hash, the cause, and when. A newer key takes
 *          the place of an older one. For people who ask, never for a decision.
 * Threads: any, of any process: a word is stored and loaded as a whole.
 * Memory:  the places are the region's; a struct rc_journal is a process's view of them.
 * Errors:  none: a damaged word tells nonsense of a key, or nothing.
 * Not:     no proof: of 2^28 keys that are asked for one is told what happened to another.
 */
#ifndef RC_JOURNAL_H
#define RC_JOURNAL_H

#include <stdatomic.h>
#include <stdint.h>

#include "redcache.h"

struct rc_journal {
    /* Fixed after init. */
    _Atomic uint64_t *places; /* a power of two of them; NULL: nothing is noted */
    uint32_t mask;
    int64_t birth_us;
};

enum { RC_JOURNAL_STEP_US = 62500, RC_JOURNAL_CAUSES = 16 };

static inline _Atomic uint64_t *rc_journal_place(const struct rc_journal *journal, uint64_t hash)
{
    return &journal->places[(uint32_t)(hash >> 12) & journal->mask];
}

/* Notes that the key of that hash is not near any more, or was not kept: RC_GONE_*. */
static inline void rc_journal_note(const struct rc_journal *journal, uint64_t hash, int32_t cause,
                                   int64_t now_us)
{
    if (journal->places == NULL)
        return;
    uint64_t steps = (uint64_t)(now_us - journal->birth_us) / RC_JOURNAL_STEP_US;
    /* Relaxed: each word stands for itself. */
    atomic_store_explicit(rc_journal_place(journal, hash),
                          steps << 32 | (hash >> 36) << 4 | (uint32_t)cause, memory_order_relaxed);
}

/* What was noted last of the key, RC_GONE_UNKNOWN where that is gone; and when, within a 16th of a
   second. */
static inline int32_t rc_journal_read(const struct rc_journal *journal, uint64_t hash,
                                      int64_t *when_us)
{
    if (journal->places == NULL)
        return RC_GONE_UNKNOWN;
    uint64_t word = atomic_load_explicit(rc_journal_place(journal, hash), memory_order_relaxed);
    int32_t cause = (int32_t)(word & (RC_JOURNAL_CAUSES - 1));
    if (((word >> 4) & 0xfffffff) != hash >> 36 || cause >= RC_GONE_CAUSES)
        return RC_GONE_UNKNOWN;
    *when_us = journal->birth_us + (int64_t)(word >> 32) * RC_JOURNAL_STEP_US;
    return cause;
}

#endif
