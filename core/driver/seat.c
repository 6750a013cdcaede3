#include "driver/seat.h"

#include <assert.h>
#include <string.h>

#include "driver/futex.h"

int rc_seat_init(struct rc_seat *seat, struct rc_client *client)
{
    memset(seat, 0, sizeof *seat);
    if (rc_op_init(&seat->op) != 0)
        return RC_ERR_NOMEM;
    seat->client = client;
    rc_list_init(&seat->waiter);
    atomic_init(&seat->state, RC_SEAT_DONE);
    return 0;
}

void rc_seat_deinit(struct rc_seat *seat)
{
    assert(!seat->is_unreported && rc_list_is_empty(&seat->waiter));
    rc_op_deinit(&seat->op);
}

bool rc_seat_park(struct rc_seat *seat, int64_t timeout_us)
{
    bool woken = true;
    uint32_t state = atomic_fetch_or(&seat->state, RC_SEAT_PARKED) | RC_SEAT_PARKED;
    while (woken && !(state & (RC_SEAT_DONE | RC_SEAT_TURN))) {
        woken = rc_futex_wait(&seat->state, state, timeout_us);
        state = atomic_load(&seat->state);
    }
    atomic_fetch_and(&seat->state, ~(uint32_t)RC_SEAT_PARKED);
    return woken || !(state & (RC_SEAT_DONE | RC_SEAT_TURN));
}

bool rc_seat_park_in_crowd(struct rc_seat *seat, int64_t timeout_us)
{
    if (seat->crowd == NULL)
        return rc_seat_park(seat, timeout_us);
    /* Read before the bit is set: who sees the bit counts a wake-up after this. */
    uint32_t wakes = atomic_load(&seat->crowd->wakes);
    uint32_t state = atomic_fetch_or(&seat->state, RC_SEAT_CROWD);
    bool woken = state & RC_SEAT_DONE || rc_futex_wait(&seat->crowd->wakes, wakes, timeout_us);
    state = atomic_fetch_and(&seat->state, ~(uint32_t)RC_SEAT_CROWD);
    return woken || !(state & RC_SEAT_DONE);
}

void rc_crowd_wake(struct rc_crowd *crowd)
{
    atomic_fetch_add(&crowd->wakes, 1); /* pairs with rc_seat_park_in_crowd */
    rc_futex_wake_all(&crowd->wakes);
}

bool rc_seat_give_turn(struct rc_seat *seat)
{
    return atomic_fetch_or(&seat->state, RC_SEAT_TURN) & RC_SEAT_PARKED;
}

bool rc_seat_take_turn(struct rc_seat *seat)
{
    return atomic_fetch_and(&seat->state, ~(uint32_t)RC_SEAT_TURN) & RC_SEAT_TURN;
}

void rc_seat_wake(struct rc_seat *seat)
{
    rc_futex_wake(&seat->state);
}
