/*
 * futex - a thread sleeps until a number changes; another one wakes it.
 *
 * What:    a wake-up for two system calls. A condition variable takes four: the thread it wakes
 *          often still finds the mutex locked, and sleeps again.
 * Threads: any, of one process.
 * Memory:  owns nothing; the number need not outlive the wake-up.
 * Errors:  none: a wait ends by its time at the latest.
 * Not:     Linux only. May wake for no reason: look at the number again.
 */
#ifndef RC_FUTEX_H
#define RC_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleeps while the number is `expected`. False when the time (monotonic) is over. */
static inline bool rc_futex_wait(_Atomic uint32_t *number, uint32_t expected, int64_t timeout_us)
{
    struct timespec left = {.tv_sec = timeout_us / 1000000, .tv_nsec = timeout_us % 1000000 * 1000};
    long error = syscall(SYS_futex, number, FUTEX_WAIT_PRIVATE, expected, &left, NULL, 0);
    return error == 0 || errno != ETIMEDOUT;
}

/* Wakes all who sleep there. */
static inline void rc_futex_wake_all(_Atomic uint32_t *number)
{
    (void)syscall(SYS_futex, number, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Wakes one sleeper. Only the address counts. */
static inline void rc_futex_wake(_Atomic uint32_t *number)
{
    (void)syscall(SYS_futex, number, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

#endif
