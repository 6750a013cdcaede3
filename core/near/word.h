/*
 * word - memory that one process writes while another one reads it.
 *
 * What:    relaxed atomic loads and stores of words at any place of a mapping, and copies made of
 *          them. Every mix of them is defined behaviour, and what was read is worth something only
 *          after its seqlock said so (index.h).
 * Threads: any.
 * Memory:  shared addresses must be multiples of the word's size; private ones need not.
 * Errors:  none.
 * Not:     orders nothing: fences and versions are the caller's.
 */
#ifndef RC_WORD_H
#define RC_WORD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The same bytes are seen as words of different sizes. */
typedef uint16_t __attribute__((may_alias)) rc_word16;
typedef uint32_t __attribute__((may_alias)) rc_word32;
typedef uint64_t __attribute__((may_alias)) rc_word64;

static inline uint8_t rc_word_load8(const void *at)
{
    return __atomic_load_n((const uint8_t *)at, __ATOMIC_RELAXED);
}

static inline uint32_t rc_word_load32(const void *at)
{
    return __atomic_load_n((const rc_word32 *)at, __ATOMIC_RELAXED);
}

static inline uint64_t rc_word_load64(const void *at)
{
    return __atomic_load_n((const rc_word64 *)at, __ATOMIC_RELAXED);
}

static inline void rc_word_store8(void *at, uint8_t value)
{
    __atomic_store_n((uint8_t *)at, value, __ATOMIC_RELAXED);
}

static inline void rc_word_store16(void *at, uint16_t value)
{
    __atomic_store_n((rc_word16 *)at, value, __ATOMIC_RELAXED);
}

static inline void rc_word_store32(void *at, uint32_t value)
{
    __atomic_store_n((rc_word32 *)at, value, __ATOMIC_RELAXED);
}

static inline void rc_word_store64(void *at, uint64_t value)
{
    __atomic_store_n((rc_word64 *)at, value, __ATOMIC_RELAXED);
}

#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
/* ThreadSanitizer does not model fences, and gcc says so. Nothing here needs it to: there are no
   plain accesses that a fence would have to order. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
static inline void rc_word_fence_acquire(void)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
}

static inline void rc_word_fence_release(void)
{
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void rc_word_fence_total(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#if defined(__SANITIZE_THREAD__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/* The first 1 to 7 bytes of a word: no call for so little. */
static inline void rc_word_put(char *to, uint64_t word, size_t len)
{
    const char *from = (const char *)&word;
    if ((len & 4) != 0) {
        memcpy(to, from, 4);
        to += 4, from += 4;
    }
    if ((len & 2) != 0) {
        memcpy(to, from, 2);
        to += 2, from += 2;
    }
    if ((len & 1) != 0)
        *to = *from;
}

/* From shared memory at a multiple of 4. Reads up to 7 bytes behind `len`, never past the next
   multiple of 8: blocks are multiples of 8. */
static inline __attribute__((always_inline)) void rc_word_read(char *to, const char *shared,
                                                               size_t len)
{
    if (((uintptr_t)shared & 4) != 0) {
        uint32_t word = rc_word_load32(shared);
        if (len < 4) {
            uint64_t wide = 0;
            memcpy(&wide, &word, 4);
            rc_word_put(to, wide, len);
            return;
        }
        memcpy(to, &word, 4);
        to += 4, shared += 4, len -= 4;
    }
    /* Word by word in registers: as an array, the compiler would put it together in memory. */
    for (; len >= 32; to += 32, shared += 32, len -= 32) {
        uint64_t a = rc_word_load64(shared), b = rc_word_load64(shared + 8);
        uint64_t c = rc_word_load64(shared + 16), d = rc_word_load64(shared + 24);
        memcpy(to, &a, 8);
        memcpy(to + 8, &b, 8);
        memcpy(to + 16, &c, 8);
        memcpy(to + 24, &d, 8);
    }
    for (; len >= 8; to += 8, shared += 8, len -= 8) {
        uint64_t word = rc_word_load64(shared);
        memcpy(to, &word, 8);
    }
    if (len != 0)
        rc_word_put(to, rc_word_load64(shared), len);
}

/* To shared memory at a multiple of 4. Fills the last word up with zeroes, as far as rc_word_read
   reads. */
static inline void rc_word_write(char *shared, const char *from, size_t len)
{
    if (((uintptr_t)shared & 4) != 0 && len != 0) {
        uint32_t word = 0;
        size_t part = len < 4 ? len : 4;
        memcpy(&word, from, part);
        rc_word_store32(shared, word);
        shared += 4, from += part, len -= part;
    }
    for (; len >= 8; shared += 8, from += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, from, 8);
        rc_word_store64(shared, word);
    }
    if (len != 0) {
        uint64_t word = 0;
        memcpy(&word, from, len);
        rc_word_store64(shared, word);
    }
}

/* Whether `len` bytes, a multiple of 4, are equal. */
static inline int rc_word_equals(const char *shared, const char *with, size_t len)
{
    uint32_t word, next;
    for (; len >= 8; shared += 8, with += 8, len -= 8) {
        memcpy(&word, with, 4);
        memcpy(&next, with + 4, 4);
        if (((rc_word_load32(shared) ^ word) | (rc_word_load32(shared + 4) ^ next)) != 0)
            return 0;
    }
    if (len == 0)
        return 1;
    memcpy(&word, with, 4);
    return rc_word_load32(shared) == word;
}

#endif
