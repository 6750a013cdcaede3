/*
 * check - whether something that was found near may still be served: the part that mostly decides.
 *
 * What:    what an owner says of itself, and what a handle says of an entry while nothing in its
 *          stripe has changed.
 * Threads: any; a handle is one thread's.
 * Memory:  none of its own; handles are the readers'.
 * Errors:  none.
 * Not:     for the files of the near cache alone, and the client's views of L0 (l0.h).
 */
#ifndef RC_NEAR_CHECK_H
#define RC_NEAR_CHECK_H

#include "near/near.h"
#include "near/near_own.h"

/* A reader that stood still for a moment may find an asof behind its own clock. */
#define RC_NEAR_ASOF_AHEAD_US INT64_C(10000000)

/* What an owner says of itself. The clock is read first, when a call begins, and the call answers
   for that moment; then `asof`, then the stamp, then (by the caller) whether the entry has changed.
   A process may stand still between any two of these; it must not be told then that the entry is
   good:

   - asof before stamp and entry: whose asof is A has dropped before that what changed before A
     (release in rc_near_set_asof, acquire here), and had renewed the stamp before if the connection
     was lost before. So what is found unchanged after A was loaded was current at A. The other way
     round a process could find the entry, sleep while it is dropped, and then load an asof that is
     later than the drop.
   - the clock before all of it: an asof that is loaded later can only be newer, so what is served
     was current max_stale before the call began. To read the processor's counter waits for all
     loads before it: at the end of a call that costs 10 ns more than at its beginning.

   Behind the clock a process may stand still, too, and use its answer late: nobody can close that
   gap but by asking again. */
struct rc_near_standing {
    struct rc_near_owner *owner;
    int64_t asof_us;
    uint32_t stamp;
};

static inline struct rc_near_standing rc_near_standing_of(struct rc_near_owner *owner)
{
    struct rc_near_standing standing = {.owner = owner};
    standing.asof_us = atomic_load_explicit(&owner->asof_us, memory_order_acquire);
    standing.stamp = atomic_load_explicit(&owner->stamp, memory_order_acquire);
    return standing;
}

/* Tells the owner that somebody reads. Mostly nothing is stored: the line stays shared. */
static inline void rc_near_touch(struct rc_near_owner *owner, int64_t now_us, int64_t max_stale_us)
{
    if (max_stale_us <= 0)
        return;
    uint64_t read_us = (uint64_t)atomic_load_explicit(&owner->read_us, memory_order_relaxed);
    if ((int64_t)((uint64_t)now_us - read_us) > max_stale_us / 8)
        atomic_store_explicit(&owner->read_us, now_us, memory_order_relaxed);
    if (max_stale_us < atomic_load_explicit(&owner->need_us, memory_order_relaxed))
        atomic_store_explicit(&owner->need_us, max_stale_us, memory_order_relaxed);
}

/* Unsigned, and both sides moved: an asof far ahead, which no owner says, is as bad as an
   old one. */
static inline bool rc_near_is_coherent(const struct rc_near_standing *standing, uint32_t stamp,
                                       int64_t now_us, int64_t max_stale_us)
{
    return standing->stamp == stamp && max_stale_us > 0 &&
           (uint64_t)now_us - (uint64_t)standing->asof_us + RC_NEAR_ASOF_AHEAD_US <=
               (uint64_t)max_stale_us + RC_NEAR_ASOF_AHEAD_US;
}

/* The rest of a check, once it is known that the entry still stands. */
static inline bool rc_near_is_good(const struct rc_near_standing *standing, uint32_t stamp,
                                   int64_t deadline_us, int64_t now_us, int64_t max_stale_us)
{
    if (now_us >= deadline_us)
        return false;
    rc_near_touch(standing->owner, now_us, max_stale_us);
    return rc_near_is_coherent(standing, stamp, now_us, max_stale_us);
}

static inline int rc_near_is_served(rc_near_handle *handle, const struct rc_near_standing *standing,
                                    int64_t now_us, int64_t max_stale_us)
{
    if (!rc_near_is_good(standing, handle->stamp, handle->deadline_us, now_us, max_stale_us))
        return 0;
    if (handle->used == 0) /* most are: its cache line stays clean */
        handle->used = 1;
    return 1;
}

static inline uint32_t rc_near_changes_of(const rc_near_handle *handle)
{
    /* Acquire: with the releases in rc_stripe_lock and rc_stripe_unlock. */
    return atomic_load_explicit((const _Atomic uint32_t *)handle->changes, memory_order_acquire);
}

/* Something in the stripe has changed, and perhaps the entry. */
int rc_near_check_bucket(struct rc_near *near, rc_near_handle *handle, int64_t now_us,
                         int64_t max_stale_us);

/* Most of the time nothing in the stripe has changed since the handle was looked at last, and that
   is all there is to know: the bucket's cache line, one of as many as there are entries, stays
   where it is. The frequency is raised when it is looked at next, which is before the next eviction
   here: that is a change. A count that is the same has not moved, unless by all 2^32 while this
   slept. */
static inline __attribute__((always_inline)) int
rc_near_check(struct rc_near *near, rc_near_handle *handle, int64_t now_us, int64_t max_stale_us)
{
    if (handle->changes == NULL)
        return 0;
    struct rc_near_standing standing =
        rc_near_standing_of(rc_region_owner(&near->region, handle->stamp));
    if (rc_near_changes_of(handle) != handle->seen_changes || (handle->seen_changes & 1) != 0)
        return rc_near_check_bucket(near, handle, now_us, max_stale_us);
    return rc_near_is_served(handle, &standing, now_us, max_stale_us);
}

#endif
