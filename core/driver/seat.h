/*
 * seat - an op and the thread that may sleep on it.
 *
 * What:    the public rc_op: the engine's op, plus what lets one thread wait for it and another
 *          wake it.
 * Threads: the caller and the engine's owner meet at `state`, and at nothing else.
 * Memory:  allocated by rc_op_new, freed by rc_op_free.
 * Errors:  none.
 * Not:     does not know who turns the engine, or how a caller that does not sleep is told.
 */
#ifndef RC_SEAT_H
#define RC_SEAT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "engine/engine.h"

struct rc_driver;
struct rc_loop;

/* Bits of a seat's state. */
enum rc_seat_state {
    RC_SEAT_DONE = 1,   /* the result is there */
    RC_SEAT_PARKED = 2, /* its thread sleeps, or is about to */
    RC_SEAT_TURN = 4,   /* the thread that turned has left: this one turns now */
    RC_SEAT_CROWD = 8   /* its thread sleeps in its crowd, or is about to */
};

/* Where many wait, those who were submitted together sleep on one number, for they are mostly done
   together: one system call wakes them all. The number counts the wake-ups. */
struct rc_crowd {
    _Atomic uint32_t wakes;
    char apart[60]; /* from the next one: each is written by the thread that turns */
};

struct rc_seat {
    struct rc_op op; /* first: rc_op * is the address of the seat */

    /* Caller only. */
    struct rc_client *client;
    struct rc_driver
        *driver;          /* where it was last submitted: another one after a fork or rc_close */
    struct rc_loop *loop; /* NULL: its caller waits for it, or asks */
    uint32_t name;        /* what the loop calls it */
    bool may_answer;      /* its wait ends where credentials are wanted of it */
    bool has_claim;       /* that is so: it was asked, and has not answered */
    bool is_held;         /* its next operation waits for those that begin with it */
    bool is_ready;        /* such an operation is: rc_driver_submit_all hands it over */

    /* Written before each submission, and as its driver stays there: NULL: none. */
    struct rc_crowd *crowd;
    /* From submission to the engine: the seat that was submitted before this one. */
    struct rc_seat *earlier;
    /* Instead of an op: work to be done as the engine's owner. */
    void (*call)(struct rc_engine *engine, void *argument);
    void *argument;

    /* From the end of the op until the loop has told it: the seat that was done before this one,
       or, once the loop has put them in order, after it. */
    struct rc_seat *next_done;
    bool is_unreported; /* in that time */

    /* Guarded by the driver's waiters_mutex: those who may take over the turning. */
    struct rc_list waiter;

    /* Any thread. Bits of enum rc_seat_state; what its thread sleeps on. */
    _Atomic uint32_t state;
};

int rc_seat_init(struct rc_seat *seat, struct rc_client *client);
void rc_seat_deinit(struct rc_seat *seat);

/* Sleeps until done, given the turn, or the time is over. False where the time was over and there
   was news all the same: a wake-up was lost, or the processor came later than the news. */
bool rc_seat_park(struct rc_seat *seat, int64_t timeout_us);
/* The same in its crowd, if it has one; not for who may be given the turn. It may return because
   others of the crowd are done, and they may be so often: who is not done then sleeps by
   rc_seat_park. */
bool rc_seat_park_in_crowd(struct rc_seat *seat, int64_t timeout_us);
void rc_crowd_wake(struct rc_crowd *crowd);
/* Returns whether its thread must be woken for that, by rc_seat_wake. */
bool rc_seat_give_turn(struct rc_seat *seat);
bool rc_seat_take_turn(struct rc_seat *seat); /* whether it was given; it is not any more */
/* Uses the seat's address alone: does no harm where the seat is gone already. */
void rc_seat_wake(struct rc_seat *seat);

/* Done. Its thread may free the seat. Returns the crowd to be woken for it, if it sleeps in one. */
static inline struct rc_crowd *rc_seat_finish_in_crowd(struct rc_seat *seat)
{
    struct rc_crowd *crowd = seat->crowd;
    /* Release pairs with rc_seat_is_done. From here on the seat may be gone. */
    uint32_t state = atomic_fetch_or(&seat->state, RC_SEAT_DONE);
    if (state & RC_SEAT_PARKED)
        rc_seat_wake(seat);
    return state & RC_SEAT_CROWD ? crowd : NULL;
}

/* Done: wakes its thread, which may free the seat. Its loop is not told: see rc_loop_finish. */
static inline void rc_seat_finish(struct rc_seat *seat)
{
    struct rc_crowd *crowd = rc_seat_finish_in_crowd(seat);
    if (crowd != NULL)
        rc_crowd_wake(crowd);
}

static inline bool rc_seat_is_done(const struct rc_seat *seat)
{
    /* Acquire pairs with rc_seat_finish: the result comes along. */
    return atomic_load_explicit(&seat->state, memory_order_acquire) & RC_SEAT_DONE;
}

#endif
