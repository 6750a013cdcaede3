/*
 * ticks - the monotonic clock, read from the processor's own counter.
 *
 * What:    microseconds of CLOCK_MONOTONIC in 10 ns where that takes 22 and its coarse variant 6.
 *          The coarse one stands still while the processor that keeps time has no turn (a busy
 *          virtual machine: seen for 0.4 s): for a cache that promises how old a value may be, that
 *          is no clock.
 *          The counter is compared with the clock every 10 ms of its own; what was counted since is
 *          all that can be wrong. Where the kernel itself does not trust the counter, or it proves
 *          unsteady, the clock is read each time.
 * Threads: any.
 * Memory:  a struct rc_ticks is of one process; a copy in a forked child goes on being right.
 * Errors:  none.
 * Not:     no wall clock, and no timer.
 */
#ifndef RC_TICKS_H
#define RC_TICKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif

enum rc_ticks_state {
    RC_TICKS_LEARNING, /* how fast the counter is */
    RC_TICKS_BUSY,     /* somebody works it out right now */
    RC_TICKS_COUNTED,
    RC_TICKS_CLOCK, /* read the clock each time */
    RC_TICKS_GIVEN  /* the same with a clock that is not the machine's */
};

struct rc_ticks {
    /* Fixed after init. */
    const _Atomic int64_t *given; /* microseconds, moved by somebody else; NULL: none */
    int64_t first_us;
    uint64_t first_count;

    /* Any thread. */
    _Atomic int state;       /* of enum rc_ticks_state */
    _Atomic uint64_t factor; /* microseconds per count, times 2^64; fixed once COUNTED */
    _Atomic uint64_t lease;  /* counts in which the last comparison holds; the same */
    _Atomic uint64_t compared_at;
    _Atomic int64_t offset_us;
};

/* given NULL: the machine's clock. */
void rc_ticks_init(struct rc_ticks *ticks, const _Atomic int64_t *given);
/* Compares, learns, or just reads the clock. */
int64_t rc_ticks_compare(struct rc_ticks *ticks);

static inline uint64_t rc_ticks_count(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#elif defined(__aarch64__)
    uint64_t count;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(count));
    return count;
#else
    return 0;
#endif
}

static inline int64_t rc_ticks_us_of(uint64_t count, uint64_t factor)
{
    return (int64_t)((unsigned __int128)count * factor >> 64);
}

/* False: rc_ticks_compare is to be asked. The counter may be read a little ahead of what stands
   before it in the program, by less than a microsecond: a processor that is interrupted throws such
   work away. */
static inline bool rc_ticks_read_us(struct rc_ticks *ticks, int64_t *now_us)
{
    /* Acquire: with the release in rc_ticks_compare; factor and lease come along. The two others
       need not fit together: from one comparison to the next they hardly change. */
    if (atomic_load_explicit(&ticks->state, memory_order_acquire) != RC_TICKS_COUNTED)
        return false;
    uint64_t count = rc_ticks_count();
    *now_us = rc_ticks_us_of(count, atomic_load_explicit(&ticks->factor, memory_order_relaxed)) +
              atomic_load_explicit(&ticks->offset_us, memory_order_relaxed);
    return count - atomic_load_explicit(&ticks->compared_at, memory_order_relaxed) <=
           atomic_load_explicit(&ticks->lease, memory_order_relaxed);
}

static inline int64_t rc_ticks_now_us(struct rc_ticks *ticks)
{
    int64_t now_us;
    return rc_ticks_read_us(ticks, &now_us) ? now_us : rc_ticks_compare(ticks);
}

#endif
