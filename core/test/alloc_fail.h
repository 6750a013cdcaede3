/*
 * alloc_fail - runs a C test once for each allocation of the core, which is refused that time.
 *
 * What:    the build of script/alloc-fail includes this in front of every C test and links
 *          alloc_fail.c and refuse.c. TEST(sentence) then counts the allocations of that test and
 *          runs it again in a process each: once per allocation, or, where there are too many or
 *          the test is slow (TEST_SLOW), once per chosen one. Which are chosen follows from how
 *          many there are alone.
 * Threads: runs the test in processes of their own; within, those of the test.
 * Memory:  counts blocks by refuse.h.
 * Errors:  runs that went wrong are failures of the test program, told with test and allocation.
 * Not:     does not judge CHECK, see below.
 * Wrong:   a run that crashes, hangs, ends with a sanitizer's report, or leaves blocks behind. A
 *          CHECK that does not hold is none of that: the test could not know.
 * Env:     ALLOC_FAIL="sentence 17": that test with its 17th allocation refused, in this process,
 *          for a debugger.
 */
#ifndef RC_ALLOC_FAIL_H
#define RC_ALLOC_FAIL_H

#include "test/test.h"

#undef TEST
#undef TEST_SLOW
#define TEST(function)      alloc_fail_run(#function, function, 1000, &test_failures)
#define TEST_SLOW(function) alloc_fail_run(#function, function, 8, &test_failures)

/* At most so many runs; adds those that went wrong to `failures`. */
void alloc_fail_run(const char *name, void (*function)(void), long most, atomic_int *failures);

#endif
