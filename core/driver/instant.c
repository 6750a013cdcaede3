/*
 * instant - how a blocking caller waits where answers come with the sending.
 *
 * It turns the loop once, and mostly that is all. Nobody sleeps as the owner here, in everybody's
 * way: what a caller waits for after that, a push or a deadline, is the reactor's to see, or comes by
 * another caller's turn. An owner is gone, or has done our work too, within a microsecond or two: so
 * who finds one yields a few times before it sleeps.
 */
#include <sched.h>

#include "driver/driver.h"

enum {
    TURNS_MAX = 64, /* for others, too; then the reactor goes on for them */
    YIELDS_MAX = 16
};

/* Turns the loop, if nobody else does, until it stands still or our seat is done: also for those who
   came meanwhile, some of them. */
static bool turn(struct rc_driver *driver, struct rc_seat *seat)
{
    if (!rc_driver_try_own(driver))
        return false;
    rc_driver_count_inline_turn(driver);
    for (int i = 0; i < TURNS_MAX && rc_driver_turn(driver, 0); i++) {
        if (rc_seat_is_done(seat) && atomic_load(&driver->submitted) == NULL &&
            !rc_driver_has_unread(driver))
            break;
    }
    rc_driver_leave(driver, false);
    return true;
}

void rc_driver_wait_instant(struct rc_driver *driver, struct rc_seat *seat)
{
    int yields = 0;
    atomic_fetch_add(&driver->waiting, 1);
    for (;;) {
        bool turned = turn(driver, seat);
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
