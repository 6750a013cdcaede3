#include "base/heap.h"

#include <stdlib.h>

#include "redcache.h"

enum { FIRST_ROOM = 16 };

void rc_heap_init(struct rc_heap *heap)
{
    *heap = (struct rc_heap){0};
}

void rc_heap_deinit(struct rc_heap *heap)
{
    free(heap->items);
    rc_heap_init(heap);
}

static void place(struct rc_heap *heap, size_t at, struct rc_timer *timer)
{
    heap->items[at] = timer;
    timer->index = at + 1;
}

static void sift_up(struct rc_heap *heap, size_t at, struct rc_timer *timer)
{
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (heap->items[parent]->at_us <= timer->at_us)
            break;
        place(heap, at, heap->items[parent]);
        at = parent;
    }
    place(heap, at, timer);
}

static void sift_down(struct rc_heap *heap, size_t at, struct rc_timer *timer)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && heap->items[child + 1]->at_us < heap->items[child]->at_us)
            child++;
        if (timer->at_us <= heap->items[child]->at_us)
            break;
        place(heap, at, heap->items[child]);
        at = child;
    }
    place(heap, at, timer);
}

/* Puts the timer where its deadline belongs, seen from a place whose item has gone. */
static void sift(struct rc_heap *heap, size_t at, struct rc_timer *timer)
{
    if (at > 0 && timer->at_us < heap->items[(at - 1) / 2]->at_us)
        sift_up(heap, at, timer);
    else
        sift_down(heap, at, timer);
}

int rc_heap_reserve(struct rc_heap *heap, size_t count)
{
    size_t room = heap->room == 0 ? FIRST_ROOM : heap->room;
    if (count <= heap->room)
        return 0;
    if (count > SIZE_MAX / 2 / sizeof(*heap->items))
        return RC_ERR_NOMEM;
    while (room < count)
        room *= 2;
    struct rc_timer **items = realloc(heap->items, room * sizeof(*items));
    if (items == NULL)
        return RC_ERR_NOMEM;
    heap->items = items;
    heap->room = room;
    return 0;
}

static void leave_line(struct rc_heap *heap, struct rc_timer *timer)
{
    if (timer->earlier != NULL)
        timer->earlier->later = timer->later;
    else
        heap->line_first = timer->later;
    if (timer->later != NULL)
        timer->later->earlier = timer->earlier;
    else
        heap->line_last = timer->earlier;
    timer->earlier = timer->later = NULL;
    timer->index = 0;
}

int rc_heap_set(struct rc_heap *heap, struct rc_timer *timer, int64_t at_us)
{
    if (timer->index == 0 || timer->index == RC_TIMER_IN_LINE) {
        if (rc_heap_reserve(heap, heap->count + 1) != 0)
            return RC_ERR_NOMEM;
        if (timer->index == RC_TIMER_IN_LINE)
            leave_line(heap, timer);
        timer->at_us = at_us;
        sift_up(heap, heap->count++, timer);
        return 0;
    }
    timer->at_us = at_us;
    sift(heap, timer->index - 1, timer);
    return 0;
}

int rc_heap_set_in_line(struct rc_heap *heap, struct rc_timer *timer, int64_t at_us)
{
    struct rc_timer *last = heap->line_last;
    if (last != NULL && last->at_us > at_us)
        return rc_heap_set(heap, timer, at_us);
    rc_heap_clear(heap, timer);
    last = heap->line_last;
    timer->at_us = at_us;
    timer->index = RC_TIMER_IN_LINE;
    timer->earlier = last;
    timer->later = NULL;
    if (last != NULL)
        last->later = timer;
    else
        heap->line_first = timer;
    heap->line_last = timer;
    return 0;
}

void rc_heap_clear(struct rc_heap *heap, struct rc_timer *timer)
{
    if (!rc_timer_is_set(timer))
        return;
    if (timer->index == RC_TIMER_IN_LINE) {
        leave_line(heap, timer);
        return;
    }
    size_t at = timer->index - 1;
    struct rc_timer *last = heap->items[--heap->count];
    timer->index = 0;
    if (last != timer)
        sift(heap, at, last);
}
