#include "test/refuse.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* Relaxed throughout: read when the threads that allocate have ended, or as a mere count. */
static atomic_long allocations, alive, refused;
static _Thread_local bool is_paused;

static bool is_refused(void)
{
    if (is_paused)
        return false;
    long nth = atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed) + 1;
    return nth == atomic_load_explicit(&refused, memory_order_relaxed);
}

static void *born(void *block)
{
    if (block != NULL)
        atomic_fetch_add_explicit(&alive, 1, memory_order_relaxed);
    return block;
}

void *refuse_malloc(size_t size)
{
    return is_refused() ? NULL : born(malloc(size));
}

void *refuse_calloc(size_t count, size_t size)
{
    return is_refused() ? NULL : born(calloc(count, size));
}

void *refuse_aligned_alloc(size_t alignment, size_t size)
{
    return is_refused() ? NULL : born(aligned_alloc(alignment, size));
}

void *refuse_realloc(void *block, size_t size)
{
    if (is_refused())
        return NULL;
    return block == NULL ? born(malloc(size)) : realloc(block, size);
}

void refuse_free(void *block)
{
    if (block != NULL)
        atomic_fetch_sub_explicit(&alive, 1, memory_order_relaxed);
    free(block);
}

void refuse_nth(long nth)
{
    atomic_store_explicit(&allocations, 0, memory_order_relaxed);
    atomic_store_explicit(&refused, nth, memory_order_relaxed);
}

long refuse_count(void)
{
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}

long refuse_alive(void)
{
    return atomic_load_explicit(&alive, memory_order_relaxed);
}

void refuse_pause(void)
{
    is_paused = true;
}

void refuse_resume(void)
{
    is_paused = false;
}
