/*
 * backlog - deletes that Redis has not heard of, of keys that were written while it was away.
 *
 * What:    a bounded queue of keys in the region of a near cache, and a count of how often Redis
 *          has come back. Every connection of every process that has the region sends what is in
 *          it before anything else (engine/owed.h); so it outlives the process that wrote it, as
 *          long as another one has the region mapped.
 * Threads: any of any process. Functions that say so are called under the region's mutex.
 * Memory:  a part of the region. Positions count bytes and never go back.
 * Errors:  false: it is full, or its bytes are damaged.
 * Not:     no values: what was written stands as an entry of the near cache (near_local.c), if
 *          there is room for it. Nothing is overwritten to make room: a promised delete stays.
 */
#ifndef RC_BACKLOG_H
#define RC_BACKLOG_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RC_BACKLOG_MIN_BYTES = 1024,
    RC_BACKLOG_MAX_BYTES = 256 * 1024, /* some 5,000 keys of 40 bytes */
    RC_BACKLOG_COUNTS = 256
};

/* What is known of the server: only of a single one (a master that sentinels watch is one, too) the
   keys need no slot. */
enum rc_backlog_mode { RC_BACKLOG_UNKNOWN, RC_BACKLOG_SINGLE, RC_BACKLOG_CLUSTER };

/* In the region; zeroes to begin with. */
struct rc_backlog_head {
    /* Any process: stored under the region's mutex, loaded without. */
    alignas(64) _Atomic uint64_t end; /* the position behind all keys */
    _Atomic uint64_t begin;           /* of the first one that Redis has not answered for */
    _Atomic uint32_t mode;            /* enum rc_backlog_mode */
    _Atomic uint32_t returns;         /* how often it was there again: entries of before are void */
    /* Guarded by the region's mutex. */
    uint64_t sent; /* up to here somebody has sent them */
    /* Any process: how often keys of that hash were written here. */
    alignas(64) _Atomic uint32_t writes[RC_BACKLOG_COUNTS];
};

/* One process's view of it. Fixed after init. */
struct rc_backlog {
    struct rc_backlog_head *head;
    char *bytes;
    uint64_t size; /* a power of two */
};

/* Of the backlog of a region of that size; a multiple of 64. */
size_t rc_backlog_bytes(size_t region_bytes);
void rc_backlog_view(struct rc_backlog *backlog, size_t region_bytes, char *at);

/* Whether Redis is owed a delete. */
static inline bool rc_backlog_is_owed(const struct rc_backlog *backlog)
{
    /* Acquire: with the releases in rc_backlog_add and rc_backlog_pay. */
    return atomic_load_explicit(&backlog->head->begin, memory_order_acquire) !=
           atomic_load_explicit(&backlog->head->end, memory_order_acquire);
}

static inline _Atomic uint32_t *rc_backlog_writes(const struct rc_backlog *backlog, uint64_t hash)
{
    return &backlog->head->writes[(uint8_t)(hash >> 16)];
}

/* Under the region's mutex. A key that is in it and was not sent yet is not added again. */
bool rc_backlog_add(struct rc_backlog *backlog, uint64_t hash, const char *key, size_t len);
/* Under the region's mutex: copies keys from `*at` on (the first that is owed, if that lies behind
   it) into `into`, each behind its length (uint32_t), as many as there is room for; `room` is
   enough for one. Moves *at behind them, and returns how many bytes were copied. 0: that was all.
 */
size_t rc_backlog_read(struct rc_backlog *backlog, uint64_t *at, char *into, size_t room);
/* Under the region's mutex: those up to `to` are deleted in Redis. */
void rc_backlog_pay(struct rc_backlog *backlog, uint64_t to);

#endif
