/*
 * seat - an op and the thread that may sleep on it.
 *
 * What:    the public rc_op: the engine's op, plus what lets one thread wait for it and another
 *          wake it.
 * Threads: the caller and the engine's owner meet here, under `mutex`.
 * Memory:  allocated by rc_op_new, freed by rc_op_free.
 */
#ifndef RC_SEAT_H
#define RC_SEAT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "engine/engine.h"

struct rc_driver;

struct rc_seat {
    struct rc_op op; /* first: rc_op * is the address of the seat */

    /* Caller only. */
    struct rc_client *client;
    struct rc_driver
        *driver; /* where it was last submitted: another one after a fork or rc_close */

    /* From submission to the engine: guarded by the driver's queue mutex. */
    struct rc_list queued;
    /* Instead of an op: work to be done as the engine's owner. */
    void (*call)(struct rc_engine *engine, void *argument);
    void *argument;

    /* Guarded by the driver's queue mutex: those who may take over the turning. */
    struct rc_list waiter;

    pthread_mutex_t mutex;
    pthread_cond_t wake;
    /* Guarded by mutex. */
    bool parked;
    bool take_turn; /* whoever turned the loop has left: it is up to you now */
    /* Written under mutex (release), read anywhere (acquire). */
    _Atomic bool done;
};

int rc_seat_init(struct rc_seat *seat, struct rc_client *client);
void rc_seat_deinit(struct rc_seat *seat);

/* Sleeps until done, take_turn, or the time is over. Returns and clears take_turn. */
bool rc_seat_park(struct rc_seat *seat, int64_t timeout_us);
void rc_seat_finish(struct rc_seat *seat);    /* done: wakes its thread */
void rc_seat_give_turn(struct rc_seat *seat); /* wakes its thread to turn the loop */

static inline bool rc_seat_is_done(struct rc_seat *seat)
{
    return atomic_load_explicit(&seat->done, memory_order_acquire); /* pairs: rc_seat_finish */
}

#endif
