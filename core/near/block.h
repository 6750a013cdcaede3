/*
 * block - how an entry lies in its block of the arena.
 *
 * What:    36 bytes of header, the key filled up with zeroes to a multiple of 4, the value. The
 *          value's length is what is left of the block's.
 * Threads: the stripe's mutex to write; readers load single words and believe them only after the
 *          bucket's version said so (index.h). newer, older and queue are the writers' own.
 * Memory:  the arena's.
 * Errors:  none.
 * Not:     does not check what a damaged region claims: near_own.h and arena.h do.
 */
#ifndef RC_BLOCK_H
#define RC_BLOCK_H

#include <stdint.h>

#include "near/arena.h"

struct rc_block {
    uint32_t word;     /* arena.h */
    uint32_t stamp;    /* of the owner that filled it */
    uint32_t deadline; /* the low bits, in units of 4 ms since the region's birth */
    uint8_t queue;     /* queue.h */
    uint8_t codec;
    uint8_t entry_flags;
    uint8_t group;
    uint8_t generation; /* moves with every fill of the stripe */
    uint8_t kind;       /* low 3 bits; then 3 high bits of the deadline */
    uint16_t key_len;
    uint32_t version[2];
    uint32_t newer; /* links of the queue: refs */
    uint32_t older;
};

enum { RC_BLOCK_HEAD = sizeof(struct rc_block) };
_Static_assert(sizeof(struct rc_block) == 36, "each byte counts: a million of them are a megabyte");

/* 35 bits of 4 ms last for four years; the last number is "no end". */
#define RC_BLOCK_NO_DEADLINE UINT64_C(0x7ffffffff)
#define RC_BLOCK_TICK_US     4000

static inline struct rc_block *rc_block_at(char *arena, uint32_t ref)
{
    return (struct rc_block *)(void *)rc_arena_at(arena, ref);
}

static inline size_t rc_block_key_room(size_t key_len)
{
    return (key_len + 3) & ~(size_t)3;
}

/* What an entry asks the arena for. */
static inline size_t rc_block_len(size_t key_len, size_t value_len)
{
    return RC_BLOCK_HEAD + rc_block_key_room(key_len) + value_len;
}

static inline char *rc_block_key(struct rc_block *block)
{
    return (char *)block + RC_BLOCK_HEAD;
}

/* Rounded down: too early is always right. Times before the region's birth are its birth. */
static inline uint64_t rc_block_ticks(int64_t deadline_us, int64_t birth_us)
{
    if (deadline_us == INT64_MAX)
        return RC_BLOCK_NO_DEADLINE;
    if (deadline_us <= birth_us)
        return 0;
    uint64_t ticks = ((uint64_t)deadline_us - (uint64_t)birth_us) / RC_BLOCK_TICK_US;
    return ticks < RC_BLOCK_NO_DEADLINE ? ticks : RC_BLOCK_NO_DEADLINE - 1;
}

static inline int64_t rc_block_time(uint64_t ticks, int64_t birth_us)
{
    return ticks == RC_BLOCK_NO_DEADLINE ? INT64_MAX : birth_us + (int64_t)ticks * RC_BLOCK_TICK_US;
}

/* By the holder of the mutex. */
static inline uint64_t rc_block_deadline(const struct rc_block *block)
{
    return block->deadline | (uint64_t)(block->kind >> 3) << 32;
}

#endif
