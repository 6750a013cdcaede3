/*
 * fork - noticing that we are in a child process.
 *
 * What:    a number that changes in each child. Threads and connections do not survive a fork; a
 *          client compares the number before each use and starts afresh, which costs no system
 *          call.
 * Threads: any.
 * Memory:  the number is one of the process.
 * Errors:  none.
 * Not:     takes no descriptor or thread away: who owns them does, once it has noticed.
 */
#ifndef RC_FORK_H
#define RC_FORK_H

#include <stdatomic.h>

void rc_fork_init(void); /* once per process, before the first rc_fork_generation */

extern _Atomic unsigned rc_fork_count; /* fork.c's */

static inline unsigned rc_fork_generation(void)
{
    /* Relaxed: it changes where this process has but one thread. */
    return atomic_load_explicit(&rc_fork_count, memory_order_relaxed);
}

#endif
