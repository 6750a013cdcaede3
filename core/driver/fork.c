#include "driver/fork.h"

#include <pthread.h>
#include <stdatomic.h>

static _Atomic unsigned generation;

static void in_child(void)
{
    atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
}

void rc_fork_init(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

unsigned rc_fork_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}
