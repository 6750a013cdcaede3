/*
 * lock - named distributed locks that know when they are lost.
 *
 * What:    a line per lock name in this process (first come, first served); its head asks Redis. A
 *          holder renews each ttl/3 and trusts the lock until t_sent + ttl - max(ttl/10, 50 ms) on
 *          its own clock, so it stops before anybody else can own it, given clocks that run at the
 *          same speed. It tracks the lock key: that a lock was deleted, taken or shortened is known
 *          as soon as Redis has told. Waiters track the release mark, and the lock key to hear that
 *          it is gone; renewals, which they hear, too, cost them a PTTL each, a second at most.
 *          In a cluster a master that is cut off goes on granting and renewing what it has lost:
 *          the others are asked whose slot it is, and the lock is looked at there.
 *          A lock with a queue (lock_queue.h) has a line for each handle, whose ticket stands in
 *          Redis: the line asks again when the mark changes, when what is in its way ends, and each
 *          ttl/3, by which the ticket lives on.
 * Threads: the engine's owner; `state` and `trusted_until_us` are read by any thread.
 * Memory:  an rc_lock belongs to its caller until rc_locks_free; lines belong to rc_locks.
 * Errors:  RC_ERR_BUSY (not within the wait), RC_ERR_NOTHELD, and what went wrong with Redis.
 * Not:     a lock for efficiency: use the fence where two holders would do harm.
 */
#ifndef RC_LOCK_H
#define RC_LOCK_H

#include <stdatomic.h>

#include "base/hash.h"
#include "base/slot.h"
#include "engine/context.h"
#include "engine/lock_queue.h"
#include "engine/topology.h"
#include "engine/track.h"

enum { RC_TOKEN_SIZE = 32 }; /* hex digits */

struct rc_lock_line;

struct rc_lock {
    /* Fixed after init. */
    struct rc_buf key;
    struct rc_buf fence_key;
    struct rc_buf mark_key;
    struct rc_lock_queue queue;

    /* Engine only. */
    struct rc_locks *locks;
    struct rc_list held;  /* in locks->held while HELD */
    struct rc_req *check; /* renewal or verification under way */
    bool is_check_doomed; /* the key changed between the answers to `check` */
    struct rc_timer renew;
    struct rc_timer trust; /* fires when trust ends */
    struct rc_watch watch; /* HELD: on the lock key */
    int32_t ttl_ms;
    int64_t key_until_us;  /* before that the key does not end, unless somebody shortens its life */
    int64_t hold_until_us; /* no renewals after this; INT64_MAX without a limit */
    uint16_t home;         /* HELD: the number of the node that it was last looked for at */
    bool renews;

    /* Engine writes (release), any thread reads (acquire). */
    _Atomic int state; /* RC_LOCK_* */
    _Atomic int64_t trusted_until_us;
    char token[RC_TOKEN_SIZE]; /* written before state becomes RC_LOCK_HELD */
};

struct rc_locks {
    /* Fixed after init. */
    struct rc_context *context;
    struct rc_topology *topology;
    struct rc_track *track;
    /* A lock is held by that node's word, from now on or for longer: others may know better. */
    void (*on_word)(void *owner, uint16_t number, bool is_new);
    void *owner;

    /* Engine only. */
    struct rc_table lines; /* names somebody waits for or holds */
    struct rc_list held;
};

void rc_locks_init(struct rc_locks *locks, struct rc_context *context, struct rc_topology *topology,
                   struct rc_track *track,
                   void (*on_word)(void *owner, uint16_t number, bool is_new), void *owner);
void rc_locks_deinit(struct rc_locks *locks);

int rc_lock_init(struct rc_lock *lock, const char *key,
                 size_t len); /* any thread, no engine needed */
/* The same for a lock with a queue. `own`: the key of this hold, in the slot of `key`; NULL: who
   holds it does so alone. */
int rc_lock_init_queued(struct rc_lock *lock, const char *key, size_t len, const char *own,
                        size_t own_len);
void rc_lock_deinit(struct rc_lock *lock); /* free, lost, or held by the parent of a fork() */

void rc_locks_acquire(struct rc_locks *locks, struct rc_op *op);
/* Whether Redis has said how the lock is since this op came, which has a timeout of its own. */
bool rc_locks_has_answered(struct rc_locks *locks, const struct rc_op *op);
/* Why Redis could not tell that the lock is free; NULL: it could. */
const char *rc_locks_why_deaf(const struct rc_locks *locks, const struct rc_lock *lock);
void rc_locks_release(struct rc_locks *locks, struct rc_op *op);
void rc_locks_extend(struct rc_locks *locks, struct rc_op *op);
void rc_locks_leave(struct rc_locks *locks, struct rc_op *op); /* an op that waits is taken out */
void rc_locks_drop(struct rc_locks *locks,
                   struct rc_lock *lock);          /* its handle goes: gives a held lock back */
void rc_locks_on_tracking(struct rc_locks *locks); /* T is ready again: check what we hold */
void rc_locks_on_map(struct rc_locks *locks);      /* slots may be others': check those locks */
void rc_locks_shutdown(struct rc_locks *locks);

#endif
