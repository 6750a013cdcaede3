/*
 * heap - deadlines: the earliest of many, in O(log n).
 *
 * What:    a binary heap of timers that live inside the objects they belong to.
 * Threads: the owner of the heap.
 * Memory:  owns its array of pointers, never the timers.
 * Errors:  rc_heap_set returns RC_ERR_NOMEM and leaves the timer as it was.
 * Not:     reads no clock and calls nobody; the engine takes what is due and calls `fire`.
 */
#ifndef RC_HEAP_H
#define RC_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rc_timer {
    int64_t at_us;
    size_t index; /* place in the heap + 1; 0 while not set */
    void (*fire)(void *context, struct rc_timer *timer);
};

struct rc_heap {
    struct rc_timer **items;
    size_t count;
    size_t room;
};

void rc_heap_init(struct rc_heap *heap);
void rc_heap_deinit(struct rc_heap *heap);
/* Up to `count` timers rc_heap_set cannot fail then. */
int rc_heap_reserve(struct rc_heap *heap, size_t count);
int rc_heap_set(struct rc_heap *heap, struct rc_timer *timer, int64_t at_us); /* inserts or moves */
void rc_heap_clear(struct rc_heap *heap, struct rc_timer *timer); /* no-op while not set */

/* NULL when empty. */
static inline struct rc_timer *rc_heap_first(const struct rc_heap *heap)
{
    return heap->count == 0 ? NULL : heap->items[0];
}

static inline bool rc_timer_is_set(const struct rc_timer *timer)
{
    return timer->index != 0;
}

#endif
