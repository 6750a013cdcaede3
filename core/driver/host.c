/*
 * host - how a host's calls turn the engine: it owns the connections, or has a store in memory.
 *
 * Its turns are all that happens: nothing works in the background.
 */
#include <assert.h>

#include "driver/loop.h"
#include "driver/turn.h"

enum { SWEEP_EVERY_US = 100000 };

/* Only calls can be waited for: this one pass does them. */
static void wait(struct rc_driver *driver, struct rc_seat *seat)
{
    (void)seat;
    rc_driver_kick(driver);
}

static void turn(struct rc_driver *driver, struct rc_loop *loop)
{
    if (!rc_driver_try_own(driver))
        return;
    for (int i = 0; i < RC_TURNS_MAX && rc_driver_turn(driver, false); i++) {
    }
    rc_driver_leave(driver, false);
    int64_t now_us = driver->engine.context.now_us;
    if (atomic_load(&driver->ended)) /* the store in memory may be gone with its last client */
        return;
    if (driver->wire->sweep != NULL && now_us - loop->swept_us >= SWEEP_EVERY_US) {
        loop->swept_us = now_us;
        driver->wire->sweep(driver, now_us);
    }
}

static uint32_t take_wants(struct rc_link *link)
{
    uint32_t wants =
        (link->wants_close ? RC_HOST_CLOSE : 0) | (link->wants_open ? RC_HOST_OPEN : 0);
    link->wants_close = link->wants_open = false;
    return wants;
}

static void tell_links(struct rc_driver *driver, rc_turn *turn)
{
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        assert(link->number < RC_HOST_LINKS);
        rc_host_link *state = &turn->links[link->number];
        state->wants = take_wants(link);
        state->len = rc_buf_len(&link->output);
        turn->news |= (state->len > 0 ? 1u << link->number : 0) |
                      (state->wants != 0 ? 1u << (RC_HOST_LINKS + link->number) : 0);
    }
    int64_t at_us = rc_engine_deadline(&driver->engine);
    int64_t left_us = at_us - driver->engine.context.now_us;
    turn->wait_us = at_us == INT64_MAX ? -1 : left_us > 0 ? left_us : 0;
}

static void tell(struct rc_driver *driver, rc_turn *turn)
{
    if (driver->wire != &rc_wire_host)
        turn->wait_us = SWEEP_EVERY_US; /* news of a store in memory has no other way to us */
    else if (turn->count < RC_TURN_NAMES)
        tell_links(driver, turn); /* by the last of the turns: what is wanted is told once */
}

const struct rc_runner rc_runner_host = {
    .is_host = true,
    .wait = wait,
    .turn = turn,
    .tell = tell,
};

/* ---- the wire: the host moves the bytes ------------------------------------------------------ */

static void send_nothing(struct rc_line *line)
{
    (void)line;
}

static bool receive_nothing(struct rc_line *line)
{
    (void)line;
    return false;
}

const struct rc_wire rc_wire_host = {
    .line_size = sizeof(struct rc_line),
    .send = send_nothing,
    .receive = receive_nothing,
};
