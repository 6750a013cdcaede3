/*
 * region - the memory of a near cache, and what is in it once: owners, groups, counts of writes.
 *
 * What:    one mapping, anonymous (inherited by fork) or named (POSIX shared memory), laid out from
 *          its size and number of stripes alone: header, counts of writes, owners, ring,
 *          sketch, journal, keys to avoid, backlog, stripes.
 * Threads: rc_region_open and _close by one thread; the rest from any thread of any process.
 * Memory:  a struct rc_region is this process's view. After a fork it is valid in the child.
 * Errors:  RC_ERR_NOMEM, RC_ERR_ARGUMENT, with a static text.
 * Not:     no protection against processes that may write the memory: a process that maps it may
 *          destroy it. Who only truncates its file kills all who have it mapped (SIGBUS).
 *
 * Who lives: an owner slot of a process that is gone goes to the next one, a slot of a living
 *          process never does: two processes with one slot would vouch for each other's copies.
 *          - Named: by a lock on the file that dies with the process (lifeline.h), so that
 *            containers with pid namespaces of their own can share a region. They must share the
 *            machine's monotonic clock: a region of another time namespace is refused.
 *          - Anonymous: by process number and start. There is no file, and all who map it descend
 *            from its maker; a descendant in another pid namespace gets no slot.
 */
#ifndef RC_REGION_H
#define RC_REGION_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "near/avoid.h"
#include "near/backlog.h"
#include "near/lifeline.h"
#include "near/near.h"
#include "near/ring.h"
#include "near/sketch.h"
#include "near/stripe.h"

enum {
    RC_REGION_STRIPES = 64,
    RC_REGION_PREFIX = 64, /* bytes of a group's prefix that are kept to compare */
    RC_REGION_SLOT_BITS = 10
};
_Static_assert(RC_NEAR_OWNERS == 1 << RC_REGION_SLOT_BITS, "a stamp holds epoch and slot");

enum { RC_OFFER_NONE, RC_OFFER_OPEN, RC_OFFER_TAKEN, RC_OFFER_ENDED };

/* Any process. What the owner's thread stores at each answer, apart from what readers store. */
struct rc_near_owner {
    alignas(64) _Atomic uint32_t stamp; /* epoch << 10 | slot; never 0 once it was used */
    _Atomic int32_t pid;                /* 0: free. Changed under the region's mutex */
    uint64_t started;                   /* of the process, against a pid's reuse; as pid */
    _Atomic int64_t asof_us;
    _Atomic uint32_t offer;  /* RC_OFFER_*: moves on from one to the next, and back with the pid */
    _Atomic uint64_t server; /* rc_near_name_owner */
    /* rc_near_note: the note, and when it was true; 0 while it changes. */
    _Atomic uint64_t note;
    _Atomic int64_t noted_us;
    alignas(64) _Atomic int64_t read_us;
    _Atomic int64_t need_us;
};

struct rc_region_group {
    uint64_t hash; /* of the whole prefix */
    uint32_t len;
    char prefix[RC_REGION_PREFIX];
};

struct rc_region_head {
    /* Fixed after init. */
    uint64_t magic;
    uint32_t layout;
    uint32_t sizes; /* of the types whose layout belongs to others */
    uint64_t bytes;
    uint64_t server;
    struct rc_mix_seed seed;
    int64_t birth_us;
    uint32_t stripe_count;
    uint32_t reserved;
    _Atomic uint32_t is_ready; /* Any process: stored last. It has this place in every layout */
    _Atomic uint32_t offers;   /* Any process: how many were made */
    uint64_t user;
    uint64_t time_space; /* the namespace of its clock; 0: not known */
    uint64_t pid_space;  /* anonymous: that of its owners' numbers; 0: not known */
    uint64_t sum;        /* of what is fixed */
    alignas(64) pthread_mutex_t mutex;
    /* Guarded by mutex. */
    struct rc_region_group groups[RC_NEAR_GROUPS];
    struct rc_stripe_bounds bounds;
};
_Static_assert(offsetof(struct rc_region_head, is_ready) == 80, "other versions look there, too");

struct rc_region {
    /* First: each is a line where the whole begins at one (rc_near_open). */
    struct rc_stripe stripes[RC_REGION_STRIPES];
    /* Fixed after init. */
    char *base;
    size_t bytes;
    struct rc_region_head *head;
    struct rc_lifeline lifeline;      /* named: guarded by head->mutex */
    uint32_t reap_at;                 /* guarded by head->mutex */
    _Atomic bool is_lost;             /* the last wait for head->mutex ran out */
    _Atomic uint32_t reaped;          /* slots that this process took from dead ones */
    _Atomic uint32_t *write_versions; /* pairs: rc_near_drop */
    uint32_t write_versions_mask;
    uint32_t owner_count;
    struct rc_near_owner *owners;
    struct rc_ring ring;       /* what has changed */
    struct rc_sketch sketch;   /* what is hit most */
    struct rc_avoid avoid;     /* what changes more often than it is read */
    struct rc_backlog backlog; /* deletes that Redis has not heard of */
    uint32_t stripe_count;
    struct rc_stripe_shape shape;
};

int rc_region_open(struct rc_region *region, const struct rc_near_options *options,
                   const char **why);
void rc_region_close(struct rc_region *region);
int rc_region_unlink(const char *name, size_t name_len);

/* Around each fork(), for as long as the region is open; the child gets a lifeline of its own. */
void rc_region_before_fork(struct rc_region *region);
void rc_region_after_fork(struct rc_region *region);
void rc_region_after_fork_in_child(struct rc_region *region);

/* The mutex of what is in it once. False: it is damaged, or somebody has it too long. */
bool rc_region_lock(struct rc_region *region);
void rc_region_unlock(struct rc_region *region);

struct rc_near_owner *rc_region_add_owner(struct rc_region *region, const char **why);
void rc_region_remove_owner(struct rc_region *region, struct rc_near_owner *owner);
uint8_t rc_region_group(struct rc_region *region, const char *prefix, size_t len, size_t min_bytes,
                        size_t max_bytes);

/* The owner that gave the stamp; a stamp read from shared memory may be anything. */
static inline struct rc_near_owner *rc_region_owner(const struct rc_region *region, uint32_t stamp)
{
    uint32_t slot = stamp & (RC_NEAR_OWNERS - 1);
    return &region->owners[slot < region->owner_count ? slot : 0];
}

/* A new epoch. The slot keeps its number; 22 bits of epochs come round after four million
   connections of one slot, by when no entry of the first is left. */
static inline void rc_region_renew(struct rc_near_owner *owner, uint32_t slot)
{
    uint32_t stamp = atomic_load_explicit(&owner->stamp, memory_order_relaxed);
    uint32_t epoch = (stamp >> RC_REGION_SLOT_BITS) + 1;
    if (epoch >> (32 - RC_REGION_SLOT_BITS) != 0)
        epoch = 1;
    /* Release: with the acquire of readers, and of rc_near_fill. */
    atomic_store_explicit(&owner->stamp, epoch << RC_REGION_SLOT_BITS | slot, memory_order_release);
}

/* The same for all owners, by anybody: nothing that is in the region up to now is coherent any
   more. An owner that renews itself at the same time fills nothing meanwhile, so that both may come
   to the same stamp. */
static inline void rc_region_renew_all(struct rc_region *region)
{
    for (uint32_t slot = 0; slot < region->owner_count; slot++)
        rc_region_renew(&region->owners[slot], slot);
}

#endif
