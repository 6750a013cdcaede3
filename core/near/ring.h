/*
 * ring - what has changed, for those who listen: a bounded ring in the region of a near cache.
 *
 * What:    an engine that hears of a changed key writes a record; each listener follows with a
 *          cursor of its own. A listener that is too slow, or finds what it cannot read, hears of a
 *          gap: it misses records, and knows it.
 *          Nothing is written while nobody listens. A listener says that it does by the time at
 *          which it came by last, so that one that dies, or never comes back, needs no end: after
 *          RC_RING_WINDOW_US nothing more is written for it, and if it comes back it hears of a
 *          gap.
 * Threads: any of any process; a struct rc_listener one at a time.
 * Memory:  a ring is a part of the region. Positions count bytes and never go back, so a record
 *          lies in the ring until as many bytes as the ring has were written behind it.
 * Errors:  none. A record is taken for what it says if it names its own position and its sum is
 *          right, so that one that is being written, was overwritten while it was read, or was left
 *          by a process that died over it, is never told.
 * Not:     no mutex, and no wake-up: listeners come by.
 */
#ifndef RC_RING_H
#define RC_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "near/mix.h"
#include "redcache.h"

enum {
    RC_RING_MIN_BYTES = 1024,
    RC_RING_MAX_BYTES = 256 * 1024,
    RC_RING_MAX_KEY =
        1024, /* RC_NEAR_MAX_KEY; or a quarter of the ring: longer ones are told as a gap */
    RC_RING_WINDOW_US = 60000000, /* so long records are written for a listener that is away */
    RC_RING_LAPSE_US = 50000000,  /* one that was away for longer may have missed some */
    RC_RING_PATIENCE_US = 1000000 /* so long a listener waits for a record that was begun */
};

/* In the region; zeroes to begin with. Any process. */
struct rc_ring_head {
    _Alignas(64) _Atomic uint64_t end;     /* the position behind all records */
    _Alignas(64) _Atomic int64_t heard_us; /* when a listener last came by; 0: none ever did */
};

/* One process's view of it. Fixed after init. */
struct rc_ring {
    struct rc_ring_head *head;
    char *bytes;
    uint64_t size; /* a power of two */
    const struct rc_mix_seed *seed;
};

/* Of a ring for a region of that size; a multiple of 64. */
size_t rc_ring_bytes(size_t region_bytes);
void rc_ring_view(struct rc_ring *ring, size_t region_bytes, char *at,
                  const struct rc_mix_seed *seed);

/* Whether anybody may hear it: what is written by rc_ring_write at all. */
static inline int rc_ring_is_heard(const struct rc_ring *ring)
{
    return atomic_load_explicit(&ring->head->heard_us, memory_order_relaxed) != 0;
}
/* RC_TOLD_PUSH, RC_TOLD_WRITE of a key; RC_TOLD_FLUSH, RC_TOLD_GAP without one. */
void rc_ring_write(struct rc_ring *ring, int told, const char *key, size_t len, int64_t now_us);

/* Hears of what comes from now on. */
void rc_ring_listen(struct rc_ring *ring, rc_listener *listener, int64_t now_us);
/* Comes by: whether rc_ring_hear has something to tell, perhaps. */
int rc_ring_has_news(struct rc_ring *ring, rc_listener *listener, int64_t now_us);
/* The next record, RC_TOLD_NOTHING: there is none. `key` has room for RC_RING_MAX_KEY bytes. */
int rc_ring_hear(struct rc_ring *ring, rc_listener *listener, char *key, size_t *len,
                 int64_t now_us);

#endif
