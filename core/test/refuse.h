/*
 * refuse - malloc and friends of the core under test, of which one allocation can be refused.
 *
 * What:    the build of script/alloc-fail compiles the core with malloc=refuse_malloc and so on; it
 *          counts the allocations and the blocks that are alive, and refuses the one it is told to.
 * Threads: any.
 * Memory:  keeps nothing but counts.
 * Errors:  the n-th allocation gets NULL, those before and after it what they ask for.
 * Not:     test code keeps the C library's malloc: a test without memory has nothing to say.
 */
#ifndef RC_REFUSE_H
#define RC_REFUSE_H

#include <stddef.h>

void *refuse_malloc(size_t size);
void *refuse_calloc(size_t count, size_t size);
void *refuse_aligned_alloc(size_t alignment, size_t size);
void *refuse_realloc(void *block, size_t size);
void refuse_free(void *block);

/* The n-th allocation from now on is refused; 0: none is. */
void refuse_nth(long nth);
long refuse_count(void); /* allocations that may be refused, so far */
long refuse_alive(void); /* blocks that were not freed */

/* Between these two nothing is refused or counted as an allocation, in this thread: what the core
   allocates is the test's own. They do not nest. */
void refuse_pause(void);
void refuse_resume(void);

#endif
