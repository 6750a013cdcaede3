#include "base/heap.h"

#include "test/test.h"

enum { TIMERS = 500 };

static bool is_heap(const struct rc_heap *heap)
{
    for (size_t i = 0; i < heap->count; i++) {
        if (heap->items[i]->index != i + 1)
            return false;
        if (i > 0 && heap->items[(i - 1) / 2]->at_us > heap->items[i]->at_us)
            return false;
    }
    return true;
}

static void has_no_first_while_empty(void)
{
    struct rc_heap heap;
    struct rc_timer timer = {0};
    rc_heap_init(&heap);
    CHECK(rc_heap_first(&heap) == NULL);
    rc_heap_clear(&heap, &timer);
    CHECK(!rc_timer_is_set(&timer));
    rc_heap_deinit(&heap);
}

static void gives_deadlines_in_order(void)
{
    struct rc_heap heap;
    struct rc_timer timers[TIMERS] = {0};
    uint64_t random = 2;
    rc_heap_init(&heap);
    for (int i = 0; i < TIMERS; i++)
        CHECK(rc_heap_set(&heap, &timers[i], test_below(&random, 1000)) == 0);
    int64_t last_us = -1;
    for (int i = 0; i < TIMERS; i++) {
        struct rc_timer *first = rc_heap_first(&heap);
        if (!CHECK(first != NULL && first->at_us >= last_us))
            break;
        last_us = first->at_us;
        rc_heap_clear(&heap, first);
        CHECK(!rc_timer_is_set(first));
    }
    CHECK(rc_heap_first(&heap) == NULL);
    rc_heap_deinit(&heap);
}

static void moves_a_timer_that_is_set_again(void)
{
    struct rc_heap heap;
    struct rc_timer a = {0}, b = {0};
    rc_heap_init(&heap);
    CHECK(rc_heap_set(&heap, &a, 10) == 0);
    CHECK(rc_heap_set(&heap, &b, 20) == 0);
    CHECK(rc_heap_first(&heap) == &a);
    CHECK(rc_heap_set(&heap, &a, 30) == 0);
    CHECK(rc_heap_first(&heap) == &b);
    CHECK(rc_heap_set(&heap, &a, INT64_MIN) == 0);
    CHECK(rc_heap_first(&heap) == &a);
    CHECK(heap.count == 2);
    rc_heap_deinit(&heap);
}

static void stays_a_heap_under_random_use(void)
{
    struct rc_heap heap;
    struct rc_timer timers[TIMERS] = {0};
    uint64_t random = 3;
    rc_heap_init(&heap);
    for (int round = 0; round < 5000; round++) {
        struct rc_timer *timer = &timers[test_below(&random, TIMERS)];
        if (test_below(&random, 3) == 0)
            rc_heap_clear(&heap, timer);
        else
            CHECK(rc_heap_set(&heap, timer, test_below(&random, 1000)) == 0);
        if (!CHECK(is_heap(&heap)))
            break;
    }
    size_t set = 0;
    for (int i = 0; i < TIMERS; i++)
        set += rc_timer_is_set(&timers[i]);
    CHECK(set == heap.count);
    rc_heap_deinit(&heap);
}

int main(void)
{
    TEST(has_no_first_while_empty);
    TEST(gives_deadlines_in_order);
    TEST(moves_a_timer_that_is_set_again);
    TEST(stays_a_heap_under_random_use);
    return test_result();
}
