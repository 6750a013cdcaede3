/*
 * engine - all of redcache that is not I/O: ops in, bytes out; bytes in, finished ops out.
 *
 * What:    starts and ends ops, as the table of their kinds says: a new kind is a row there. The
 *          driver tells it the time, moves the links' bytes, and fires timers by rc_engine_run when
 *          rc_engine_deadline has come.
 * Threads: one owner at a time; the driver sees to it.
 * Memory:  owns everything but the ops.
 * Errors:  through the ops.
 * Not:     no system call, no clock, no thread.
 */
#ifndef RC_ENGINE_H
#define RC_ENGINE_H

#include "engine/call.h"
#include "engine/cluster.h"
#include "engine/context.h"
#include "engine/fetch.h"
#include "engine/lease.h"
#include "engine/lend.h"
#include "engine/lock.h"
#include "engine/ownership.h"
#include "engine/login.h"
#include "engine/replicas.h"
#include "engine/scout.h"
#include "engine/sentinel.h"
#include "engine/topology.h"
#include "engine/track.h"
#include "near/near.h"

struct rc_engine {
    struct rc_context context;
    struct rc_login login;
    struct rc_topology topology;
    struct rc_replicas replicas;
    struct rc_cluster cluster;
    struct rc_track track;
    struct rc_calls calls;
    struct rc_leases leases;
    struct rc_locks locks;
    struct rc_lends lends;
    struct rc_sentinel sentinel;
    struct rc_scout scout;
    struct rc_ownership ownership;
    struct rc_near *near; /* NULL: none. The client's; outlives the engine */
    struct rc_fetches fetches;
    struct rc_list running; /* ops by their `active` link */
};

/* near NULL: without a near cache. */
int rc_engine_init(struct rc_engine *engine, const rc_options *options,
                   const struct rc_address *address, struct rc_near *near,
                   const struct rc_seed *seed, int64_t now_us);
void rc_engine_deinit(struct rc_engine *engine); /* after rc_engine_end */

static inline void rc_engine_set_time(struct rc_engine *engine, int64_t now_us)
{
    engine->context.now_us = now_us;
}

/* When the next timer is due. INT64_MAX: there is none. */
static inline int64_t rc_engine_deadline(const struct rc_engine *engine)
{
    const struct rc_timer *timer = rc_heap_first(&engine->context.timers);
    return timer != NULL ? timer->at_us : INT64_MAX;
}

void rc_engine_submit(struct rc_engine *engine, struct rc_op *op);
/* Around many that are submitted at once, between which no output is sent: equal reads of them are
   one request. */
void rc_engine_open_burst(struct rc_engine *engine);
void rc_engine_close_burst(struct rc_engine *engine);
struct rc_op *rc_engine_take_finished(struct rc_engine *engine); /* NULL: none is left */

/* Fires due timers. */
static inline void rc_engine_run(struct rc_engine *engine)
{
    if (rc_engine_deadline(engine) <= engine->context.now_us)
        rc_context_fire_timers(&engine->context);
}

/* Ends with RC_ERR_CANCELLED what carries the tag, running or leading; returns how many. */
int rc_engine_cancel(struct rc_engine *engine, uint64_t tag);
/* The op's slot goes away: takes it out of everything, and tells nobody. */
void rc_engine_drop(struct rc_engine *engine, struct rc_op *op);

/* The lock's handle goes away: its operations are cancelled, a held lock is given back. */
void rc_engine_drop_lock(struct rc_engine *engine, struct rc_lock *lock);

/* What was lent is given back; what runs over it is cancelled, and then it is closed. */
void rc_engine_take_back(struct rc_engine *engine, struct rc_lent *lent);

/* Newer credentials, for all connections from now on: those that are open say who they are again.
   Older ones than it has: nothing. RC_ERR_NOMEM. */
int rc_engine_authenticate(struct rc_engine *engine, const struct rc_credentials *credentials);
/* Who was asked has none: what waits for them tells why. */
void rc_engine_fail_login(struct rc_engine *engine, const char *text, size_t len);

/* Somebody reads the near cache in this process: connects, before anything is asked for. */
void rc_engine_warm(struct rc_engine *engine);
/* This engine is about to end: others on this machine may take over what it has read, until
   rc_engine_is_offer_ended. False: it has nothing that could be handed over. */
bool rc_engine_offer(struct rc_engine *engine);
bool rc_engine_is_offer_ended(struct rc_engine *engine);

/* Up to when the near copies are known coherent; 0: none are, or there is no near cache. */
int64_t rc_engine_asof_us(struct rc_engine *engine);

/* Closing: first give everything back, then, when is_drained or the patience is over, end. */
void rc_engine_close(struct rc_engine *engine);
bool rc_engine_is_drained(const struct rc_engine *engine);
/* Closes the connections if nothing runs over them and nothing is held. True: they are closed. */
bool rc_engine_rest(struct rc_engine *engine);
void rc_engine_end(struct rc_engine *engine);

/* rc_breaker. */
int rc_engine_hold_breakers(struct rc_engine *engine, int hold, const char *address);
/* Asks the server, too, where it was not asked for a moment: the next answer to this knows. */
void rc_engine_get_health(struct rc_engine *engine, rc_health *health);

#endif
