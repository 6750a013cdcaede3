/*
 * clock - the monotonic clock of this machine, in microseconds.
 *
 * What:    reads CLOCK_MONOTONIC.
 * Threads: any.
 * Memory:  none.
 * Errors:  none: the clock is always there.
 * Not:     for the engine: its owner tells it the time.
 */
#ifndef RC_CLOCK_H
#define RC_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t rc_clock_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

#endif
