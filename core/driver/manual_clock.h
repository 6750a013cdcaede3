/*
 * manual_clock - a clock that stands still until somebody moves it, and what goes by it.
 *
 * What:    time, and the drivers that live in it. They have no thread: moving the clock turns them,
 *          at each of their deadlines, one after the other in the order they were started. A
 *          blocking wait that only time can end moves the clock to the next deadline by itself. So
 *          nothing takes real time, and everything happens in the same order each time.
 * Threads: one, for the clock and the clients on it.
 * Memory:  counted references: the maker's, and one per client. Drivers are their clients'.
 * Errors:  none.
 * Not:     no clock of the machine is read.
 */
#ifndef RC_MANUAL_CLOCK_H
#define RC_MANUAL_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/list.h"
#include "redcache.h"

struct rc_clock {
    _Atomic int64_t now_us; /* the near cache reads it, too */
    unsigned references;
    struct rc_list drivers; /* by `beat` */
};

/* 0 means "never" in many places, and half an hour ago is a time, too: so it begins later. */
#define RC_CLOCK_START_US (INT64_C(86400) * 1000000)
/* The wall clock of a store when a clock begins: 1 January 2020. */
#define RC_CLOCK_START_UNIX_US (INT64_C(1577836800) * 1000000)

void rc_clock_ref(struct rc_clock *clock);

static inline int64_t rc_clock_read(const struct rc_clock *clock)
{
    return atomic_load_explicit(&clock->now_us, memory_order_acquire);
}

#endif
