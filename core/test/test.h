/*
 * test - the harness of the C tests.
 *
 * What:    TEST(sentence) runs a test and prints its name; CHECK(condition) tells file and line
 *          where it does not hold. TEST_SLOW(sentence) is one of half a second or more, which
 *          script/alloc-fail runs a few times only.
 * Threads: CHECK may be called from any thread; TEST from main.
 * Memory:  none.
 * Errors:  test_result() is the exit status: 1 where a CHECK did not hold.
 * Not:     no fork and no fixtures: a test sets up and takes down what it needs. The test goes on
 *          behind a CHECK that does not hold.
 *
 *     static void evicts_the_oldest_entry(void) { ... CHECK(near.count == 1); }
 *     int main(void) { TEST(evicts_the_oldest_entry); return test_result(); }
 */
#ifndef RC_TEST_H
#define RC_TEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

static atomic_int test_failures;

#define CHECK(condition)    test_check((condition), #condition, __FILE__, __LINE__)
#define TEST(function)      test_run(#function, function)
#define TEST_SLOW(function) test_run(#function, function)

/* Returns the condition, so that a test may stop where going on makes no sense. */
static inline bool test_check(bool holds, const char *condition, const char *file, int line)
{
    if (!holds) {
        /* Relaxed: read after the threads were joined. */
        atomic_fetch_add_explicit(&test_failures, 1, memory_order_relaxed);
        fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    }
    return holds;
}

static inline void test_run(const char *name, void (*function)(void))
{
    int before = atomic_load_explicit(&test_failures, memory_order_relaxed);
    function();
    int after = atomic_load_explicit(&test_failures, memory_order_relaxed);
    printf("%s  ", after == before ? "ok  " : "FAIL");
    for (; *name != '\0'; name++)
        putchar(*name == '_' ? ' ' : *name);
    putchar('\n');
    fflush(stdout);
}

static inline int test_result(void)
{
    return atomic_load_explicit(&test_failures, memory_order_relaxed) == 0 ? 0 : 1;
}

/* Random numbers that are the same in every run (SplitMix64). */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t word = *state += UINT64_C(0x9e3779b97f4a7c15);
    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

static inline uint32_t test_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(test_random(state) % limit);
}

#endif
