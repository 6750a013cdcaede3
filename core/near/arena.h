/*
 * arena - a stripe's memory, handed out in blocks.
 *
 * What:    segregated fit: free blocks in lists by size class, eight classes per power of two,
 *          found by bitmaps; neighbours that are free become one. What was never used lies behind
 *          `top` and is taken last, so that memory is touched only as it fills.
 * Threads: under the mutex of the stripe. Readers may look at any block at any time without it, so
 *          words in blocks are stored atomically (word.h).
 * Memory:  a block begins with one word: its size, how many of its bytes are padding, whether it is
 *          used and whether the one before is. The other bytes are the user's while it is used.
 *          Blocks are named by refs: place / 8 + 1, and 0 is none.
 * Errors:  0 where nothing fits; RC_ARENA_DAMAGED where words contradict each other: the memory is
 *          input, and none of it is believed before it is checked. Everything stays within `end`,
 *          which its owner vouches for, as for top <= end.
 * Not:     no eviction; who needs room makes it (stripe.h).
 * Source:  Masmano et al.: TLSF: a new dynamic memory allocator for real-time systems, ECRTS 2004.
 */
#ifndef RC_ARENA_H
#define RC_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "near/word.h"

enum {
    RC_ARENA_LEVELS = 24,
    RC_ARENA_STEPS = 8,
    RC_ARENA_SMALLEST = 16 /* bytes: what a free block needs for its links */
};
#define RC_ARENA_UNITS     UINT32_C(0x03ffffff) /* the size in units of 8 bytes */
#define RC_ARENA_PAD_SHIFT 26                   /* bytes at the end that are not the user's */
#define RC_ARENA_PAD       UINT32_C(0x3c000000) /* 0 to 15 of them */
#define RC_ARENA_USED      UINT32_C(0x40000000)
#define RC_ARENA_PREV_USED UINT32_C(0x80000000)
#define RC_ARENA_DAMAGED   UINT32_MAX /* no ref */
/* Larger arenas would not fit in the word. */
#define RC_ARENA_MAX_BYTES ((size_t)RC_ARENA_UNITS * 8)

struct rc_arena {
    uint32_t end;    /* units of 8 bytes in all */
    uint32_t top;    /* units handed out at least once; a block just below it is used */
    uint32_t levels; /* bit: some class of that level has a block */
    uint8_t steps[RC_ARENA_LEVELS];
    uint32_t free[RC_ARENA_LEVELS][RC_ARENA_STEPS]; /* refs of first blocks */
};

void rc_arena_init(struct rc_arena *arena, size_t bytes); /* touches none of them */
/* A block for `len` > 0 bytes, its word included; the word is set. */
uint32_t rc_arena_alloc(struct rc_arena *arena, char *base, size_t len);
/* Returns the free block it became a part of; top + 1 where it is behind the top now. A ref of
   anything else but a used block: RC_ARENA_DAMAGED. */
uint32_t rc_arena_free(struct rc_arena *arena, char *base, uint32_t ref);

static inline char *rc_arena_at(char *base, uint32_t ref)
{
    return base + (size_t)(ref - 1) * 8;
}

/* Of a block, by its word. */
static inline size_t rc_arena_bytes(uint32_t word)
{
    return (size_t)(word & RC_ARENA_UNITS) * 8;
}

/* What was asked for. */
static inline size_t rc_arena_len(uint32_t word)
{
    return rc_arena_bytes(word) - ((word & RC_ARENA_PAD) >> RC_ARENA_PAD_SHIFT);
}

#endif
