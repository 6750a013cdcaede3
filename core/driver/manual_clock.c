#include "driver/manual_clock.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "driver/driver.h"
#include "driver/fork.h"

rc_clock *rc_clock_new(void)
{
    struct rc_clock *clock = calloc(1, sizeof *clock);
    if (clock == NULL)
        return NULL;
    atomic_init(&clock->now_us, RC_CLOCK_START_US);
    clock->references = 1;
    rc_list_init(&clock->drivers);
    return clock;
}

void rc_clock_ref(struct rc_clock *clock)
{
    clock->references++;
}

void rc_clock_free(rc_clock *clock)
{
    if (--clock->references == 0)
        free(clock);
}

void rc_clock_add(struct rc_clock *clock, struct rc_driver *driver)
{
    rc_list_append(&clock->drivers, &driver->beat);
}

void rc_clock_remove(struct rc_driver *driver)
{
    rc_list_remove(&driver->beat);
}

/* Those a parent process has left behind stand still. */
static bool is_alive(const struct rc_driver *driver)
{
    return driver->fork_generation == rc_fork_generation();
}

static bool turn(struct rc_driver *driver)
{
    /* Another owner breaks the promise of one thread; he turns it himself. */
    if (!is_alive(driver) || !rc_driver_try_own(driver))
        return false;
    bool any = rc_driver_turn(driver, ~0u);
    rc_driver_leave(driver, false);
    return any;
}

/* Until nobody has anything left to say at this time. */
static void settle(struct rc_clock *clock)
{
    bool any = true;
    while (any) {
        any = false;
        RC_LIST_EACH(beat, following, &clock->drivers) {
            any |= turn(RC_CONTAINER(beat, struct rc_driver, beat));
        }
    }
}

static int64_t next_deadline(struct rc_clock *clock)
{
    int64_t next_us = INT64_MAX;
    RC_LIST_EACH(beat, following, &clock->drivers) {
        const struct rc_driver *driver = RC_CONTAINER(beat, struct rc_driver, beat);
        int64_t at_us = is_alive(driver) ? rc_engine_deadline(&driver->engine) : INT64_MAX;
        next_us = at_us < next_us ? at_us : next_us;
    }
    return next_us;
}

static void upkeep(struct rc_clock *clock)
{
    RC_LIST_EACH(beat, following, &clock->drivers) {
        struct rc_driver *driver = RC_CONTAINER(beat, struct rc_driver, beat);
        if (is_alive(driver) && !atomic_load(&driver->ended) && driver->wire->upkeep != NULL)
            driver->wire->upkeep(driver, rc_clock_read(clock));
    }
}

static void move_to(struct rc_clock *clock, int64_t at_us)
{
    /* Release pairs with rc_clock_read. */
    if (at_us > rc_clock_read(clock))
        atomic_store_explicit(&clock->now_us, at_us, memory_order_release);
    upkeep(clock);
    settle(clock);
}

void rc_clock_wait(struct rc_clock *clock, struct rc_seat *seat)
{
    settle(clock);
    while (!rc_seat_is_done(seat)) {
        int64_t at_us = next_deadline(clock);
        assert(at_us != INT64_MAX); /* every op ends by a deadline of its own */
        move_to(clock, at_us);
    }
}

void rc_clock_advance(rc_clock *clock, int64_t us)
{
    int64_t now_us = rc_clock_read(clock);
    int64_t until_us = us < INT64_MAX - now_us ? now_us + us : INT64_MAX - 1;
    settle(clock);
    for (int64_t at_us = next_deadline(clock); at_us <= until_us; at_us = next_deadline(clock))
        move_to(clock, at_us);
    move_to(clock, until_us);
}

int64_t rc_clock_now(const rc_clock *clock)
{
    return rc_clock_read(clock) - RC_CLOCK_START_US;
}
