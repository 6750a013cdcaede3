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

static void lines_up_what_comes_in_order(void)
{
    struct rc_heap heap;
    struct rc_timer a = {0}, b = {0}, c = {0}, other = {0};
    rc_heap_init(&heap);
    CHECK(rc_heap_set_in_line(&heap, &a, 10) == 0);
    CHECK(rc_heap_set_in_line(&heap, &b, 20) == 0);
    CHECK(rc_heap_set_in_line(&heap, &c, 20) == 0);
    CHECK(heap.count == 0 && heap.room == 0);
    CHECK(rc_heap_set(&heap, &other, 15) == 0);
    rc_heap_clear(&heap, &b);
    CHECK(!rc_timer_is_set(&b));
    CHECK(rc_heap_first(&heap) == &a);
    rc_heap_clear(&heap, &a);
    CHECK(rc_heap_first(&heap) == &other);
    rc_heap_clear(&heap, &other);
    CHECK(rc_heap_first(&heap) == &c);
    rc_heap_clear(&heap, &c);
    CHECK(rc_heap_first(&heap) == NULL);
    rc_heap_deinit(&heap);
}

static void takes_into_the_heap_what_comes_out_of_order(void)
{
    struct rc_heap heap;
    struct rc_timer a = {0}, b = {0};
    rc_heap_init(&heap);
    CHECK(rc_heap_set_in_line(&heap, &a, 20) == 0);
    CHECK(rc_heap_set_in_line(&heap, &b, 19) == 0);
    CHECK(heap.count == 1);
    CHECK(rc_heap_first(&heap) == &b);
    CHECK(rc_heap_set_in_line(&heap, &b, 20) == 0); /* out of the heap, to the end of the line */
    CHECK(heap.count == 0);
    CHECK(rc_heap_first(&heap) == &a);
    CHECK(rc_heap_set(&heap, &a, 30) == 0); /* out of the line, into the heap */
    CHECK(heap.count == 1);
    CHECK(rc_heap_first(&heap) == &b);
    rc_heap_deinit(&heap);
}

static bool is_first(const struct rc_heap *heap, const struct rc_timer *timers)
{
    const struct rc_timer *first = rc_heap_first(heap);
    for (int i = 0; i < TIMERS; i++) {
        if (rc_timer_is_set(&timers[i]) && (first == NULL || first->at_us > timers[i].at_us))
            return false;
    }
    return first == NULL || rc_timer_is_set(first);
}

static void tells_the_earliest_of_heap_and_line(void)
{
    struct rc_heap heap;
    struct rc_timer timers[TIMERS] = {0};
    uint64_t random = 4;
    rc_heap_init(&heap);
    for (int round = 0; round < 5000; round++) {
        struct rc_timer *timer = &timers[test_below(&random, TIMERS)];
        int64_t at_us = round / 4 + (int64_t)test_below(&random, 200);
        switch (test_below(&random, 4)) {
        case 0: rc_heap_clear(&heap, timer); break;
        case 1: CHECK(rc_heap_set(&heap, timer, at_us) == 0); break;
        default: CHECK(rc_heap_set_in_line(&heap, timer, at_us) == 0); break;
        }
        if (!CHECK(is_heap(&heap) && is_first(&heap, timers)))
            break;
    }
    rc_heap_deinit(&heap);
}

int main(void)
{
    TEST(has_no_first_while_empty);
    TEST(gives_deadlines_in_order);
    TEST(moves_a_timer_that_is_set_again);
    TEST(stays_a_heap_under_random_use);
    TEST(lines_up_what_comes_in_order);
    TEST(takes_into_the_heap_what_comes_out_of_order);
    TEST(tells_the_earliest_of_heap_and_line);
    return test_result();
}
