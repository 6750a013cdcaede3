/* What is hit most is told, however many are hit, and no longer once it is over. */
#include "near/sketch.h"

#include <pthread.h>
#include <string.h>

#include "test/test.h"

enum { SMALL = 64 * 1024, LARGE = 64 * 1024 * 1024, ROOM = 80 * 1024, KEYS = 200000 };

static _Alignas(64) char memory[ROOM];
static struct rc_sketch sketch;
static struct rc_sketch_hot hottest[RC_SKETCH_PLACES];

static void begin(size_t region_bytes)
{
    CHECK(rc_sketch_bytes(region_bytes) <= sizeof memory &&
          rc_sketch_bytes(region_bytes) % 64 == 0);
    memset(memory, 0, sizeof memory);
    rc_sketch_view(&sketch, region_bytes, memory);
}

/* A hash like the near cache's: every bit of it is any. */
static uint64_t hash_of(uint64_t number)
{
    number = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    number = (number ^ number >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    number = (number ^ number >> 27) * UINT64_C(0x94d049bb133111eb);
    return number ^ number >> 31;
}

static void count(uint64_t number, int times, int64_t age_us)
{
    for (int i = 0; i < times; i++)
        rc_sketch_count(&sketch, hash_of(number), 1, age_us);
}

static int place_of(uint64_t number, uint32_t known)
{
    for (uint32_t i = 0; i < known; i++)
        if (hottest[i].hash == hash_of(number))
            return (int)i;
    return -1;
}

static void knows_nothing_at_first(void)
{
    begin(SMALL);
    CHECK(rc_sketch_hottest(&sketch, 0, hottest) == 0);
    CHECK(rc_sketch_estimate(&sketch, hash_of(1)) == 0);
}

static void counts_few_keys_exactly(void)
{
    begin(LARGE);
    count(1, 7, 0);
    count(2, 9, 0);
    CHECK(rc_sketch_estimate(&sketch, hash_of(1)) == 7);
    CHECK(rc_sketch_hottest(&sketch, 0, hottest) == 2);
    CHECK(hottest[0].hash == hash_of(2) && hottest[0].count == 9);
    CHECK(hottest[1].hash == hash_of(1) && hottest[1].count == 7);
}

/* Each one of 20 keys has 200 hits and more, each of 200,000 others two. */
static void finds_the_hottest_among_many(void)
{
    begin(LARGE);
    for (int round = 0; round < 2; round++) {
        for (uint64_t number = 100; number < 100 + KEYS; number++) {
            count(number, 1, 0);
            if (number % 1000 == 0)
                for (uint64_t hot = 0; hot < 20; hot++)
                    count(hot, (int)(1 + hot), 0);
        }
    }
    uint32_t known = rc_sketch_hottest(&sketch, 0, hottest);
    uint64_t wrong = 0;
    for (uint64_t hot = 0; hot < 20; hot++) {
        uint32_t hits = (uint32_t)(400 * (1 + hot)),
                 told = rc_sketch_estimate(&sketch, hash_of(hot));
        CHECK(told >= hits && told <= hits + 150);
        int place = place_of(hot, known);
        wrong += place < 0 || place != 19 - (int)hot;
    }
    CHECK(wrong == 0);
}

static void counts_one_for_many(void)
{
    begin(LARGE);
    count(1, 7, 0);
    rc_sketch_count(&sketch, hash_of(1), 16, 0);
    rc_sketch_count(&sketch, hash_of(2), 24, 0);
    CHECK(rc_sketch_hottest(&sketch, 0, hottest) == 2);
    CHECK(hottest[0].hash == hash_of(2) && hottest[0].count == 24);
    CHECK(hottest[1].hash == hash_of(1) && hottest[1].count == 23);
    rc_sketch_count(&sketch, hash_of(2), UINT32_MAX - 10, 0);
    CHECK(rc_sketch_estimate(&sketch, hash_of(2)) == UINT32_MAX);
}

static void knows_for_a_minute_that_somebody_asked(void)
{
    int64_t asked_us = 90 * (int64_t)1000000, second_us = 1000000;
    begin(SMALL);
    CHECK(!rc_sketch_is_asked(&sketch, 0) && !rc_sketch_is_asked(&sketch, asked_us));
    rc_sketch_ask(&sketch, asked_us);
    CHECK(rc_sketch_is_asked(&sketch, asked_us));
    CHECK(rc_sketch_is_asked(&sketch, asked_us + RC_SKETCH_ASKED_S * second_us));
    CHECK(!rc_sketch_is_asked(&sketch, asked_us + (RC_SKETCH_ASKED_S + 1) * second_us));
    rc_sketch_ask(&sketch, 0);
    CHECK(rc_sketch_is_asked(&sketch, 0));
}

static void forgets_half_of_it_every_minute(void)
{
    begin(LARGE);
    count(1, 80, 0);
    CHECK(rc_sketch_hottest(&sketch, RC_SKETCH_HALF_US, hottest) == 1 && hottest[0].count == 40);
    count(2, 30, 2 * (int64_t)RC_SKETCH_HALF_US);
    CHECK(rc_sketch_hottest(&sketch, 2 * (int64_t)RC_SKETCH_HALF_US, hottest) == 2);
    CHECK(hottest[0].count == 30 && hottest[1].count == 20);
    CHECK(rc_sketch_hottest(&sketch, 90 * (int64_t)RC_SKETCH_HALF_US, hottest) == 0);
}

static void a_key_that_was_hot_makes_room(void)
{
    begin(SMALL);
    for (uint64_t number = 0; number < 100; number++)
        count(number, 50, 0);
    int64_t later_us = 5 * (int64_t)RC_SKETCH_HALF_US;
    count(1000, 40, later_us);
    CHECK(rc_sketch_hottest(&sketch, later_us, hottest) > 0 && hottest[0].hash == hash_of(1000));
}

static void is_harmless_where_bytes_are_damaged(void)
{
    begin(LARGE);
    memset(memory, 0xff, sizeof memory);
    count(1, 3, 7 * (int64_t)RC_SKETCH_HALF_US);
    CHECK(rc_sketch_hottest(&sketch, INT64_MAX, hottest) <= RC_SKETCH_PLACES);
    memset(memory, 0xff, sizeof memory);
    count(1, 3, (int64_t)UINT32_MAX * RC_SKETCH_HALF_US);
    CHECK(rc_sketch_estimate(&sketch, hash_of(1)) == UINT32_MAX);
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { THREADS = 4, STEPS = 100000 };

static void *count_many(void *argument)
{
    uint64_t seed = (uint64_t)(uintptr_t)argument;
    for (int i = 0; i < STEPS; i++) { /* time passes twice for all */
        uint64_t number = i % 4 == 0 ? 1 : 10 + test_below(&seed, 5000);
        rc_sketch_count(&sketch, hash_of(number), 1, (int64_t)i * 2 * RC_SKETCH_HALF_US / STEPS);
    }
    return NULL;
}

static void many_count_at_once(void)
{
    pthread_t threads[THREADS];
    begin(LARGE);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, count_many, (void *)(i + 1)) == 0);
    for (int i = 0; i < 50; i++)
        CHECK(rc_sketch_hottest(&sketch, 0, hottest) <= RC_SKETCH_PLACES);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    count(1, 1, 2 * (int64_t)RC_SKETCH_HALF_US); /* others may have been the last to have aged it */
    uint32_t known = rc_sketch_hottest(&sketch, 2 * (int64_t)RC_SKETCH_HALF_US, hottest);
    CHECK(known > 0 && hottest[0].hash == hash_of(1));
}

int main(void)
{
    TEST(knows_nothing_at_first);
    TEST(counts_few_keys_exactly);
    TEST(finds_the_hottest_among_many);
    TEST(counts_one_for_many);
    TEST(knows_for_a_minute_that_somebody_asked);
    TEST(forgets_half_of_it_every_minute);
    TEST(a_key_that_was_hot_makes_room);
    TEST(is_harmless_where_bytes_are_damaged);
    TEST(many_count_at_once);
    return test_result();
}
