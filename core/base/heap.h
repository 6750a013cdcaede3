/*
 * heap - deadlines: the earliest of many, in O(log n); in O(1) where they come in order.
 *
 * What:    a binary heap of timers that live inside the objects they belong to, and beside it a
 *          line of those that were set in the order of their deadlines.
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
    size_t index; /* place in the heap + 1; RC_TIMER_IN_LINE; 0 while not set */
    void (*fire)(void *context, struct rc_timer *timer);
    struct rc_timer *earlier, *later; /* in the line; NULL: none */
};

#define RC_TIMER_IN_LINE SIZE_MAX

struct rc_heap {
    struct rc_timer **items;
    size_t count;
    size_t room;
    struct rc_timer *line_first, *line_last; /* by `later`; NULL: the line is empty */
};

void rc_heap_init(struct rc_heap *heap);
void rc_heap_deinit(struct rc_heap *heap);
/* Up to `count` timers rc_heap_set cannot fail then. */
int rc_heap_reserve(struct rc_heap *heap, size_t count);
int rc_heap_set(struct rc_heap *heap, struct rc_timer *timer, int64_t at_us); /* inserts or moves */
/* The same for one of many that wait equally long. Their deadlines mostly come in order: such a one
   goes to the end of the line, any other into the heap. */
int rc_heap_set_in_line(struct rc_heap *heap, struct rc_timer *timer, int64_t at_us);
void rc_heap_clear(struct rc_heap *heap, struct rc_timer *timer); /* no-op while not set */

/* NULL when empty. */
static inline struct rc_timer *rc_heap_first(const struct rc_heap *heap)
{
    struct rc_timer *of_line = heap->line_first;
    struct rc_timer *of_heap = heap->count == 0 ? NULL : heap->items[0];
    if (of_line == NULL || (of_heap != NULL && of_heap->at_us < of_line->at_us))
        return of_heap;
    return of_line;
}

static inline bool rc_timer_is_set(const struct rc_timer *timer)
{
    return timer->index != 0;
}

#endif
