/*
 * poll - how a host turns the engine whose own loop watches the reactor's descriptor.
 *
 * There is no thread: the reactor works whenever the host dispatches it, in a turn or in a wait.
 */
#include <poll.h>

#include "driver/reactor.h"
#include "driver/turn.h"

static void wait(struct rc_driver *driver, struct rc_seat *seat)
{
    if (atomic_load(&driver->ended)) {
        rc_driver_kick(driver);
        return;
    }
    struct pollfd fd = {.fd = rc_reactor_fd(driver), .events = POLLIN};
    rc_reactor_dispatch(driver);
    while (!rc_seat_is_done(seat) && !rc_driver_asks(driver, seat)) {
        (void)poll(&fd, 1, -1);
        rc_reactor_dispatch(driver);
    }
    rc_reactor_wake(driver); /* others may be done, too: that is for a turn to tell */
}

static void turn(struct rc_driver *driver, struct rc_loop *loop)
{
    (void)loop;
    rc_reactor_dispatch(driver);
}

const struct rc_runner rc_runner_poll = {
    .start = rc_reactor_start_hosted,
    .stop = rc_reactor_stop,
    .free = rc_reactor_free,
    .orphan = rc_reactor_orphan,
    .wake = rc_reactor_wake,
    .wait = wait,
    .turn = turn,
    .fd = rc_reactor_fd,
};
