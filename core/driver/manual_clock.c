#include "driver/manual_clock.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "driver/fork.h"
#include "driver/turn.h"

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

/* Those a parent process has left behind stand still. */
static bool is_alive(const struct rc_driver *driver)
{
    return driver->fork_generation == rc_fork_generation();
}

static bool turn_once(struct rc_driver *driver)
{
    /* Another owner breaks the promise of one thread, and turns it by itself. */
    if (!is_alive(driver) || !rc_driver_try_own(driver))
        return false;
    bool any = rc_driver_turn(driver, true);
    rc_driver_leave(driver, false);
    return any;
}

/* Until nobody has anything left to say at this time. */
static void run_to_rest(struct rc_clock *clock)
{
    bool any = true;
    while (any) {
        any = false;
        RC_LIST_EACH(place, following, &clock->drivers) {
            any |= turn_once(RC_CONTAINER(place, struct rc_driver, clock_place));
        }
    }
}

static int64_t next_deadline(struct rc_clock *clock)
{
    int64_t next_us = INT64_MAX;
    RC_LIST_EACH(place, following, &clock->drivers) {
        const struct rc_driver *driver = RC_CONTAINER(place, struct rc_driver, clock_place);
        int64_t at_us = is_alive(driver) ? rc_engine_deadline(&driver->engine) : INT64_MAX;
        next_us = at_us < next_us ? at_us : next_us;
    }
    return next_us;
}

static void sweep(struct rc_clock *clock)
{
    RC_LIST_EACH(place, following, &clock->drivers) {
        struct rc_driver *driver = RC_CONTAINER(place, struct rc_driver, clock_place);
        if (is_alive(driver) && !atomic_load(&driver->ended) && driver->wire->sweep != NULL)
            driver->wire->sweep(driver, rc_clock_read(clock));
    }
}

static void move_to(struct rc_clock *clock, int64_t at_us)
{
    /* Release pairs with rc_clock_read. */
    if (at_us > rc_clock_read(clock))
        atomic_store_explicit(&clock->now_us, at_us, memory_order_release);
    sweep(clock);
    run_to_rest(clock);
}

/* Moves the clock from deadline to deadline until the seat is done. */
static void wait(struct rc_driver *driver, struct rc_seat *seat)
{
    struct rc_clock *clock = driver->clock;
    run_to_rest(clock);
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
    run_to_rest(clock);
    for (int64_t at_us = next_deadline(clock); at_us <= until_us; at_us = next_deadline(clock))
        move_to(clock, at_us);
    move_to(clock, until_us);
}

int64_t rc_clock_now(const rc_clock *clock)
{
    return rc_clock_read(clock) - RC_CLOCK_START_US;
}

/* ---- the runner ------------------------------------------------------------------------------ */

/* From its start to its end a driver goes by the clock. */
static int add(struct rc_driver *driver)
{
    rc_list_append(&driver->clock->drivers, &driver->clock_place);
    return 0;
}

static void remove_driver(struct rc_driver *driver)
{
    rc_list_remove(&driver->clock_place);
}

static void turn(struct rc_driver *driver, struct rc_loop *loop)
{
    (void)loop;
    rc_driver_serve(driver, RC_TURNS_MAX);
}

static void pause_1_ms(struct rc_driver *driver)
{
    rc_clock_advance(driver->clock, 1000);
}

const struct rc_runner rc_runner_clock = {
    .start = add,
    .free = remove_driver,
    .wait = wait,
    .turn = turn,
    .pause = pause_1_ms,
};
