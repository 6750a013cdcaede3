/*
 * stripe - a part of the region with a mutex of its own: entries, and who has to leave.
 *
 * What:    on top of index, arena, queues and ghost: find, put and remove entries, and start over
 *          after a process died in the middle of a change, or what is found there contradicts
 *          itself. Who makes room is evict.
 * Threads: everything but rc_stripe_count under rc_stripe_lock. No thread holds two of these
 *          mutexes, and nothing is allocated or called back under one.
 * Memory:  a struct rc_stripe is this process's view of one; `head` and what follows it are shared.
 * Errors:  rc_stripe_lock fails where a mutex is beyond repair, or nobody gives it back. Everything
 *          else that finds damage says so by rc_stripe_damage, gives up what it does, and the
 *          stripe is emptied when its mutex is given back.
 * Not:     does not know owners or time: who may serve an entry is near's to say.
 */
#ifndef RC_STRIPE_H
#define RC_STRIPE_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "near/arena.h"
#include "near/block.h"
#include "near/ghost.h"
#include "near/index.h"
#include "near/journal.h"
#include "near/mix.h"
#include "near/near.h"
#include "near/queue.h"

enum rc_stripe_counter {
    RC_STRIPE_FILLS,
    RC_STRIPE_DOOMS,
    RC_STRIPE_INVALIDATIONS,
    RC_STRIPE_WRITES,
    RC_STRIPE_EVICTIONS,
    RC_STRIPE_EXPIRATIONS,
    RC_STRIPE_GHOSTS,
    RC_STRIPE_REFUSALS,
    RC_STRIPE_AVOIDED,
    RC_STRIPE_REVALIDATIONS,
    RC_STRIPE_REPAIRS,
    RC_STRIPE_DAMAGED,
    RC_STRIPE_ENTRIES,
    RC_STRIPE_BYTES,
    RC_STRIPE_COUNTERS
};

/* Bounds of the groups, for the whole region. Any process. */
struct rc_stripe_bounds {
    _Atomic uint32_t count; /* groups in use, 0 included */
    _Atomic uint64_t min[RC_NEAR_GROUPS];
    _Atomic uint64_t max[RC_NEAR_GROUPS]; /* 0: none */
};

/* The same for all stripes of a region, and fixed after init. */
struct rc_stripe_shape {
    int mutex_kind; /* what tells a mutex of ours, undamaged, from another one */
    size_t bytes;   /* of a stripe in all */
    uint32_t bucket_count;
    uint32_t ghost_count;
    uint32_t max_entries;
    uint32_t shift; /* a stripe's share of a group's bounds */
    size_t buckets_at;
    size_t ghosts_at;
    size_t arena_at;
    size_t arena_bytes;
    int64_t birth_us;
    struct rc_mix_seed seed;
    struct rc_journal journal; /* the region's */
};

enum { RC_STRIPE_WRITING = 1, RC_STRIPE_DAMAGE };

struct rc_stripe_head {
    alignas(64) pthread_mutex_t mutex; /* robust: it can be taken after its holder died */
    /* Any process: not 0 while the holder of the mutex may have left things half done. */
    _Atomic uint32_t writing; /* RC_STRIPE_WRITING, RC_STRIPE_DAMAGE */
    /* Any process. Moves when a holder of the mutex begins, to an odd number, and when it ends: who
       finds it as it was knows that nothing in the stripe has changed. */
    alignas(64) _Atomic uint32_t changes;
    /* Any process. Changed under the mutex but for refusals. */
    alignas(64) _Atomic uint64_t counters[RC_STRIPE_COUNTERS];
    /* Guarded by mutex. */
    uint64_t serial; /* of fills: versions of plain values */
    struct rc_arena arena;
    struct rc_queue_pair queues[RC_NEAR_GROUPS];
};

struct rc_stripe {
    /* What a reader needs: one line. */
    struct rc_index_bucket *buckets;
    char *arena;
    size_t arena_bytes; /* as in shape */
    struct rc_stripe_head *head;
    uint32_t bucket_count; /* as in shape */
    _Atomic bool is_lost;  /* a wait for its mutex ran out: nobody waits that long again */
    const struct rc_stripe_shape *shape;
    const struct rc_stripe_bounds *bounds;
    struct rc_ghost_line *ghosts;
};
_Static_assert(sizeof(struct rc_stripe) == 64, "a line, found by a shift");

/* False where the bytes are too few. */
bool rc_stripe_plan(struct rc_stripe_shape *shape, size_t bytes);
void rc_stripe_view(struct rc_stripe *stripe, const struct rc_stripe_shape *shape,
                    const struct rc_stripe_bounds *bounds, char *at);
/* On zeroed memory. */
int rc_stripe_init(struct rc_stripe *stripe);
/* A robust mutex that processes share. */
int rc_stripe_init_mutex(pthread_mutex_t *mutex);
/* Takes one, without ever sleeping in it. 0, EOWNERDEAD (taken, too), EBUSY where the thread that
   has it did not give it back in patience_us, or what is wrong with it. */
enum { RC_STRIPE_PATIENCE_US = 1000000 };
int rc_stripe_take_mutex(pthread_mutex_t *mutex, int kind, int64_t patience_us);

/* Takes the mutex and says that things change from here on. */
bool rc_stripe_lock(struct rc_stripe *stripe);
void rc_stripe_unlock(struct rc_stripe *stripe);
/* Under the mutex: what was found cannot be. Everything goes when the mutex is given back. */
void rc_stripe_damage(struct rc_stripe *stripe);
bool rc_stripe_is_damaged(const struct rc_stripe *stripe);
/* Where the mutex cannot be had: takes all entries out of sight. Its holder may still add one. */
void rc_stripe_abandon(struct rc_stripe *stripe);
/* Whether a change may be going on that a reader does not see yet. Pairs with rc_stripe_lock. */
bool rc_stripe_is_changing(const struct rc_stripe *stripe);

void rc_stripe_count(struct rc_stripe *stripe, enum rc_stripe_counter counter); /* one more */

/* Writes an entry that is not there yet to the block `ref`, which is allocated, and to an empty
   place. */
void rc_stripe_put(struct rc_stripe *stripe, uint32_t ref, struct rc_index_spot spot,
                   const struct rc_near_entry *entry, uint32_t stamp, uint64_t ticks, int queue,
                   uint32_t heat);
struct rc_index_spot rc_stripe_find(struct rc_stripe *stripe, uint64_t hash, const char *key,
                                    size_t key_len);
/* Returns the hole it leaves (rc_arena_free); 0: damaged. */
uint32_t rc_stripe_remove(struct rc_stripe *stripe, struct rc_index_spot spot);
/* To the front of the main queue of its group. False: damaged. */
bool rc_stripe_move_to_main(struct rc_stripe *stripe, uint32_t ref);
/* Whether there can be an entry in that block, with a key and a group; else it is damage. Of others
   nothing below may be asked. */
bool rc_stripe_has(struct rc_stripe *stripe, uint32_t ref);
void rc_stripe_haunt(struct rc_stripe *stripe, uint64_t hash); /* the ghost queue remembers it */
uint64_t rc_stripe_hash(const struct rc_stripe *stripe, uint32_t ref);
bool rc_stripe_is_over(const struct rc_stripe *stripe, uint32_t ref, int64_t now_us);
/* The largest rc_block_len that is accepted in that group. */
size_t rc_stripe_max_len(const struct rc_stripe *stripe, uint8_t group);

static inline struct rc_block *rc_stripe_block(const struct rc_stripe *stripe,
                                               struct rc_index_spot spot)
{
    return rc_block_at(stripe->arena, rc_index_ref(spot.bucket, spot.slot));
}

#endif
