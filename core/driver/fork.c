#include "driver/fork.h"

#include <pthread.h>

_Atomic unsigned rc_fork_count;

static void in_child(void)
{
    atomic_fetch_add_explicit(&rc_fork_count, 1, memory_order_relaxed);
}

void rc_fork_init(void)
{
    pthread_atfork(NULL, NULL, in_child);
}
