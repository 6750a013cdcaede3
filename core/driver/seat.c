#include "driver/seat.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "driver/clock.h"

int rc_seat_init(struct rc_seat *seat, struct rc_client *client)
{
    pthread_condattr_t attributes;
    memset(seat, 0, sizeof *seat);
    if (rc_op_init(&seat->op) != 0)
        return RC_ERR_NOMEM;
    seat->client = client;
    rc_list_init(&seat->queued);
    rc_list_init(&seat->waiter);
    atomic_init(&seat->done, true);
    pthread_mutex_init(&seat->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* wall clocks jump */
    int error = pthread_cond_init(&seat->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return error == 0 ? 0 : RC_ERR_NOMEM;
}

void rc_seat_deinit(struct rc_seat *seat)
{
    /* Whoever finished the op may still be on the way out of the mutex. */
    pthread_mutex_lock(&seat->mutex);
    pthread_mutex_unlock(&seat->mutex);
    pthread_cond_destroy(&seat->wake);
    pthread_mutex_destroy(&seat->mutex);
    rc_op_deinit(&seat->op);
}

bool rc_seat_park(struct rc_seat *seat, int64_t timeout_us)
{
    int64_t until_us = rc_clock_us() + timeout_us;
    struct timespec until = {.tv_sec = until_us / 1000000, .tv_nsec = until_us % 1000000 * 1000};
    int error = 0;
    pthread_mutex_lock(&seat->mutex);
    seat->parked = true;
    while (!atomic_load_explicit(&seat->done, memory_order_relaxed) && !seat->take_turn &&
           error == 0)
        error = pthread_cond_timedwait(&seat->wake, &seat->mutex, &until);
    seat->parked = false;
    bool take_turn = seat->take_turn;
    seat->take_turn = false;
    pthread_mutex_unlock(&seat->mutex);
    return take_turn;
}

void rc_seat_finish(struct rc_seat *seat)
{
    pthread_mutex_lock(&seat->mutex);
    atomic_store_explicit(&seat->done, true, memory_order_release);
    if (seat->parked)
        pthread_cond_signal(&seat->wake);
    pthread_mutex_unlock(&seat->mutex);
}

void rc_seat_give_turn(struct rc_seat *seat)
{
    pthread_mutex_lock(&seat->mutex);
    seat->take_turn = true;
    if (seat->parked)
        pthread_cond_signal(&seat->wake);
    pthread_mutex_unlock(&seat->mutex);
}
