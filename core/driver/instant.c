/*
 * instant - how a blocking caller waits where answers come with the sending.
 *
 * It turns the engine once, and mostly that is all. Nobody sleeps as the owner here, in everybody's
 * way: what a caller waits for after that, a push or a deadline, is seen by the reactor, or comes
 * by another caller's turn. An owner leaves, or has done the caller's work too, within a
 * microsecond or two: so a caller that finds one yields a few times before it sleeps.
 */
#include <sched.h>

#include "driver/reactor.h"
#include "driver/turn.h"

enum { YIELDS_MAX = 16 };

/* Turns the engine, if nobody else does, until it stands still or the seat is done: also for some
   of those who came meanwhile; then the reactor goes on for them. */
static bool turn_for(struct rc_driver *driver, struct rc_seat *seat)
{
    if (!rc_driver_try_own(driver))
        return false;
    rc_driver_count_inline_turn(driver);
    for (int i = 0; i < RC_TURNS_MAX && rc_driver_turn(driver, false); i++) {
        if (rc_seat_is_done(seat) && atomic_load(&driver->submitted) == NULL &&
            !rc_driver_has_unread(driver))
            break;
    }
    rc_driver_leave(driver, false);
    return true;
}

static void wait(struct rc_driver *driver, struct rc_seat *seat)
{
    int yields = 0;
    atomic_fetch_add(&driver->waiting, 1);
    for (;;) {
        bool turned = turn_for(driver, seat);
        if (rc_seat_is_done(seat))
            break;
        if (turned || ++yields == YIELDS_MAX) {
            rc_driver_park(driver, seat);
            yields = 0;
        } else {
            sched_yield();
        }
    }
    atomic_fetch_sub(&driver->waiting, 1);
}

static void turn(struct rc_driver *driver, struct rc_loop *loop)
{
    (void)loop;
    rc_driver_serve(driver, RC_TURNS_MAX);
}

const struct rc_runner rc_runner_instant = {
    .start = rc_reactor_start,
    .stop = rc_reactor_stop,
    .free = rc_reactor_free,
    .orphan = rc_reactor_orphan,
    .wake = rc_reactor_wake,
    .wait = wait,
    .turn = turn,
};
