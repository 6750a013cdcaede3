#include "near/ticks.h"

#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/clock.h"

enum {
    LEARN_US = 20000,   /* a window of that length tells the speed to a few parts in 10,000 */
    COMPARE_US = 10000, /* in which that is an error of a few microseconds */
    BRACKET_US = 5,     /* between counter, clock and counter again: nobody has interrupted */
    UNSTEADY_US = 2000, /* so far off, within a second, is no drift */
    TRIES = 3
};

/* The kernel has checked the counter of every processor against the others, and keeps its own time
   by it; or the hypervisor does. */
static bool is_trusted(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || (d & 1u << 8) == 0)
        return false; /* it may change its speed, or sleep */
    char name[32] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (file == NULL)
        return false;
    bool is_read = fgets(name, sizeof name, file) != NULL;
    fclose(file);
    return is_read && (strcmp(name, "tsc\n") == 0 || strcmp(name, "kvm-clock\n") == 0);
#elif defined(__aarch64__)
    return true; /* the architecture asks for one counter, of constant speed */
#else
    return false;
#endif
}

/* Reads counter and clock as of one moment. False where that did not succeed. */
static bool read_both(const struct rc_ticks *ticks, uint64_t *count, int64_t *now_us)
{
    uint64_t factor = atomic_load_explicit(&ticks->factor, memory_order_relaxed);
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t before = rc_ticks_count();
        *now_us = rc_clock_us();
        *count = rc_ticks_count();
        /* Without a factor yet: no counter of use runs faster than 10 GHz. */
        uint64_t passed = *count - before;
        if (factor != 0 ? rc_ticks_us_of(passed, factor) <= BRACKET_US
                        : passed <= BRACKET_US * UINT64_C(10000))
            return true;
    }
    return false;
}

static void set(struct rc_ticks *ticks, uint64_t count, int64_t now_us)
{
    uint64_t factor = atomic_load_explicit(&ticks->factor, memory_order_relaxed);
    atomic_store_explicit(&ticks->offset_us, now_us - rc_ticks_us_of(count, factor),
                          memory_order_relaxed);
    atomic_store_explicit(&ticks->compared_at, count, memory_order_relaxed);
}

void rc_ticks_init(struct rc_ticks *ticks, const _Atomic int64_t *given)
{
    memset(ticks, 0, sizeof *ticks);
    ticks->given = given;
    if (given != NULL) {
        atomic_store_explicit(&ticks->state, RC_TICKS_GIVEN, memory_order_release);
        return;
    }
    bool is_of_use = is_trusted() && read_both(ticks, &ticks->first_count, &ticks->first_us);
    atomic_store_explicit(&ticks->state, is_of_use ? RC_TICKS_LEARNING : RC_TICKS_CLOCK,
                          memory_order_release);
}

static void learn(struct rc_ticks *ticks, uint64_t count, int64_t now_us)
{
    int learning = RC_TICKS_LEARNING, next = RC_TICKS_CLOCK;
    if (now_us - ticks->first_us < LEARN_US ||
        !atomic_compare_exchange_strong_explicit(&ticks->state, &learning, RC_TICKS_BUSY,
                                                 memory_order_acquire, memory_order_relaxed))
        return;
    uint64_t counts = count - ticks->first_count;
    uint64_t passed_us = (uint64_t)(now_us - ticks->first_us);
    if (count > ticks->first_count && counts > passed_us) { /* faster than a megahertz */
        unsigned __int128 factor = ((unsigned __int128)passed_us << 64) / counts;
        atomic_store_explicit(&ticks->factor, (uint64_t)factor, memory_order_relaxed);
        atomic_store_explicit(&ticks->lease, counts / passed_us * COMPARE_US, memory_order_relaxed);
        set(ticks, count, now_us);
        next = RC_TICKS_COUNTED;
    }
    atomic_store_explicit(&ticks->state, next, memory_order_release);
}

static bool is_unsteady(const struct rc_ticks *ticks, uint64_t count, int64_t now_us)
{
    uint64_t factor = atomic_load_explicit(&ticks->factor, memory_order_relaxed);
    uint64_t passed = count - atomic_load_explicit(&ticks->compared_at, memory_order_relaxed);
    int64_t told_us = rc_ticks_us_of(count, factor) +
                      atomic_load_explicit(&ticks->offset_us, memory_order_relaxed);
    int64_t off_us = told_us > now_us ? told_us - now_us : now_us - told_us;
    return rc_ticks_us_of(passed, factor) < 1000000 && off_us > UNSTEADY_US;
}

int64_t rc_ticks_compare(struct rc_ticks *ticks)
{
    uint64_t count;
    int64_t now_us;
    int state = atomic_load_explicit(&ticks->state, memory_order_acquire);
    if (state == RC_TICKS_GIVEN) /* Acquire: what was done before the clock was moved is seen. */
        return atomic_load_explicit(ticks->given, memory_order_acquire);
    if ((state != RC_TICKS_LEARNING && state != RC_TICKS_COUNTED) ||
        !read_both(ticks, &count, &now_us))
        return rc_clock_us();
    if (state == RC_TICKS_LEARNING)
        learn(ticks, count, now_us);
    else if (is_unsteady(ticks, count, now_us))
        atomic_store_explicit(&ticks->state, RC_TICKS_CLOCK, memory_order_release);
    else
        set(ticks, count, now_us);
    return now_us;
}
