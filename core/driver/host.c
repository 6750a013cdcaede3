/*
 * host - how a host's calls turn the engine: it owns the connections, or has a store in memory.
 *
 * Its turns are all that happens: nothing works in the background.
 */
#include "driver/loop.h"
#include "driver/turn.h"
#include "driver/wire_host.h"

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

static uint32_t wants_of(const struct rc_link *link)
{
    if (link->is_leaving)
        return RC_HOST_CLOSE | RC_HOST_GONE;
    return (link->wants_close ? RC_HOST_CLOSE : 0) | (link->wants_open ? RC_HOST_OPEN : 0);
}

static void tell_link(struct rc_link *link, rc_turn *turn)
{
    rc_host_link *state = &turn->links[turn->link_count++];
    state->number = link->number;
    state->wants = wants_of(link);
    state->len = rc_buf_len(&link->output);
    if (state->wants & RC_HOST_CLOSE) /* before the host closes its own */
        rc_host_line_unshare(rc_host_line_of(link->line));
    link->wants_close = link->wants_open = false;
}

/* Those with news. Where not all have room, the next turn begins behind the last that had. */
static void tell_links(struct rc_driver *driver, rc_turn *turn)
{
    uint32_t last = driver->last_told;
    driver->last_told = UINT32_MAX;
    for (int round = last == UINT32_MAX; round < 2; round++) {
        RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
            bool has_news = wants_of(link) != 0 || rc_buf_len(&link->output) > 0;
            if (!has_news || (round == 0) != (link->number > last))
                continue;
            if (turn->link_count == RC_TURN_LINKS)
                return;
            tell_link(link, turn);
            driver->last_told = link->number;
        }
    }
    driver->last_told = UINT32_MAX;
}

static void tell_host(struct rc_driver *driver, rc_turn *turn)
{
    tell_links(driver, turn);
    if (driver->engine.topology.leaving > 0)
        rc_driver_release_links(driver);
    bool is_all = driver->last_told == UINT32_MAX;
    int64_t at_us = is_all ? rc_engine_deadline(&driver->engine) : 0;
    int64_t left_us = at_us - driver->engine.context.now_us;
    turn->wait_us = at_us == INT64_MAX ? -1 : left_us > 0 ? left_us : 0;
}

static void tell(struct rc_driver *driver, rc_turn *turn)
{
    if (driver->wire != &rc_wire_host)
        turn->wait_us = SWEEP_EVERY_US; /* news of a store in memory has no other way to us */
    else if (turn->count < RC_TURN_NAMES)
        tell_host(driver, turn); /* by the last of the turns: what is wanted is told once */
}

/* In a child of fork(): the connections are its parent's. */
static void orphan(struct rc_driver *driver)
{
    RC_TOPOLOGY_EACH(link, &driver->engine.topology) {
        if (driver->wire == &rc_wire_host)
            rc_host_line_unshare(rc_host_line_of(link->line));
    }
}

const struct rc_runner rc_runner_host = {
    .is_host = true,
    .orphan = orphan,
    .wait = wait,
    .turn = turn,
    .tell = tell,
};
