#include "driver/seat.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "test/test.h"

enum { SLEEPERS = 8, ROUNDS = 20000 };

static const int64_t PATIENCE_US = 60 * INT64_C(1000000);

struct sleeper {
    struct rc_seat seat;
    pthread_t thread;
    bool came_in_time;
};

static void *sleep_in_crowd(void *argument)
{
    struct sleeper *sleeper = argument;
    sleeper->came_in_time = rc_seat_park_in_crowd(&sleeper->seat, PATIENCE_US);
    return NULL;
}

static void *sleep_alone(void *argument)
{
    struct sleeper *sleeper = argument;
    sleeper->came_in_time = rc_seat_park(&sleeper->seat, PATIENCE_US);
    return NULL;
}

static void start(struct sleeper *sleeper, struct rc_crowd *crowd, void *(*sleep)(void *))
{
    uint32_t bit = sleep == sleep_alone ? RC_SEAT_PARKED : RC_SEAT_CROWD;
    sleeper->seat.crowd = crowd;
    CHECK(pthread_create(&sleeper->thread, NULL, sleep, sleeper) == 0);
    while (!(atomic_load(&sleeper->seat.state) & bit))
        sched_yield();
}

static void join(struct sleeper *sleeper)
{
    pthread_join(sleeper->thread, NULL);
    CHECK(sleeper->came_in_time);
}

static void all_of_a_crowd_are_woken_at_once(void)
{
    static struct rc_crowd crowd;
    static struct sleeper sleepers[SLEEPERS];
    for (int i = 0; i < SLEEPERS; i++)
        start(&sleepers[i], &crowd, sleep_in_crowd);
    for (int i = 0; i < SLEEPERS; i++)
        CHECK(rc_seat_finish_in_crowd(&sleepers[i].seat) == &crowd);
    rc_crowd_wake(&crowd);
    CHECK(atomic_load(&crowd.wakes) == 1); /* who was about to sleep does not */
    for (int i = 0; i < SLEEPERS; i++) {
        join(&sleepers[i]);
        CHECK(atomic_load(&sleepers[i].seat.state) == RC_SEAT_DONE);
    }
}

static void one_that_is_done_alone_is_woken_too(void)
{
    static struct rc_crowd crowd;
    static struct sleeper sleeper;
    start(&sleeper, &crowd, sleep_in_crowd);
    rc_seat_finish(&sleeper.seat);
    join(&sleeper);
}

static void who_is_done_before_does_not_sleep(void)
{
    static struct rc_crowd crowd;
    static struct rc_seat seat;
    seat.crowd = &crowd;
    CHECK(rc_seat_finish_in_crowd(&seat) == NULL);
    CHECK(rc_seat_park_in_crowd(&seat, PATIENCE_US));
    CHECK(atomic_load(&crowd.wakes) == 0);
}

static void who_was_woken_for_others_sleeps_alone(void)
{
    static struct rc_crowd crowd;
    static struct sleeper sleeper;
    start(&sleeper, &crowd, sleep_in_crowd);
    rc_crowd_wake(&crowd);
    join(&sleeper);
    CHECK(atomic_load(&sleeper.seat.state) == 0);
    start(&sleeper, &crowd, sleep_alone);
    CHECK(rc_seat_finish_in_crowd(&sleeper.seat) == NULL);
    join(&sleeper);
}

static void who_has_no_crowd_sleeps_alone(void)
{
    static struct sleeper sleeper;
    CHECK(pthread_create(&sleeper.thread, NULL, sleep_in_crowd, &sleeper) == 0);
    while (!(atomic_load(&sleeper.seat.state) & RC_SEAT_PARKED))
        sched_yield();
    rc_seat_finish(&sleeper.seat);
    join(&sleeper);
}

/* A seat that is used again and again, as by a caller. */
static struct {
    struct rc_seat seat;
    struct rc_crowd crowds[2];
    _Atomic int round;
} shared;

static void *finish_each_round(void *unused)
{
    for (int round = 1; round <= ROUNDS; round++) {
        while (atomic_load(&shared.round) != round)
            sched_yield();
        for (int i = round % 64; i > 0; i--) /* at each moment of the caller's falling asleep */
            atomic_load(&shared.round);
        struct rc_crowd *crowd = rc_seat_finish_in_crowd(&shared.seat);
        if (crowd != NULL)
            rc_crowd_wake(crowd);
    }
    return unused;
}

static void no_wake_up_is_lost(void)
{
    pthread_t finisher;
    CHECK(pthread_create(&finisher, NULL, finish_each_round, NULL) == 0);
    for (int round = 1; round <= ROUNDS; round++) {
        shared.seat.crowd = &shared.crowds[round % 2];
        atomic_store(&shared.seat.state, 0);
        atomic_store(&shared.round, round);
        bool in_time = rc_seat_park_in_crowd(&shared.seat, PATIENCE_US);
        if (!rc_seat_is_done(&shared.seat)) /* woken for the round before, with the same crowd */
            in_time = in_time && rc_seat_park(&shared.seat, PATIENCE_US);
        if (!CHECK(in_time && rc_seat_is_done(&shared.seat)))
            exit(1); /* the other thread would wait for the next round */
    }
    pthread_join(finisher, NULL);
}

int main(void)
{
    TEST(all_of_a_crowd_are_woken_at_once);
    TEST(one_that_is_done_alone_is_woken_too);
    TEST(who_is_done_before_does_not_sleep);
    TEST(who_was_woken_for_others_sleeps_alone);
    TEST(who_has_no_crowd_sleeps_alone);
    TEST(no_wake_up_is_lost);
    return test_result();
}
