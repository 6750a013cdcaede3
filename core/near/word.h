/*
 * word - memory that one process writes while another one reads it.
 *
 * What:    relaxed atomic loads and stores of words at any place of a mapping, and copies made of
 *          them. Every mix of them is defined behaviour, and what was read is worth something only
 *          after its seqlock said so (index.h). Where a copy needs no whole words, readers on x86
 *          take 16 bytes at a time (RC_WORD_WIDE).
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

/* Whether 8 and 16 bytes are loaded at once from anywhere, aligned or not. C has no atomic load of
   that kind, and needs none here: such a load may be torn, as a copy of several words may be, and
   the seqlock finds both out. What C must not do is to take a plain load for one that nobody
   disturbs, and do it twice, or in parts: so these are instructions of the machine, which the
   compiler neither repeats nor looks into. They stand where memory is loaded, between the atomic
   loads and fences around them, which keep them there. Sanitizers do not see them, and check the
   copy by words instead. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define RC_WORD_CHECKED 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define RC_WORD_CHECKED 1
#endif
#if defined(__x86_64__) && defined(__SSE2__) && !defined(RC_WORD_CHECKED)
#define RC_WORD_WIDE 1
#include <emmintrin.h>
#else
#define RC_WORD_WIDE 0
#endif

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

#if RC_WORD_WIDE
static inline uint64_t rc_word_wide8(const char *shared)
{
    uint64_t word;
    __asm__ volatile("movq %1, %0" : "=r"(word) : "m"(*(const char(*)[8])shared));
    return word;
}

static inline __m128i rc_word_wide16(const char *shared)
{
    __m128i words;
    __asm__ volatile("movdqu %1, %0" : "=x"(words) : "m"(*(const char(*)[16])shared));
    return words;
}

static inline void rc_word_move16(char *to, const char *shared)
{
    _mm_storeu_si128((__m128i *)(void *)to, rc_word_wide16(shared));
}

static inline void rc_word_move8(char *to, const char *shared)
{
    uint64_t word = rc_word_wide8(shared);
    memcpy(to, &word, 8);
}

/* From shared memory at a multiple of 4. Reads up to 7 bytes behind `len`, never past the next
   multiple of 8: blocks are multiples of 8. */
static inline __attribute__((always_inline)) void rc_word_read(char *to, const char *shared,
                                                               size_t len)
{
    if (len >= 16) {
        size_t at = 0, last = len - 16; /* the end once more, where it is no multiple of 16 */
        for (; at + 64 <= len; at += 64) {
            rc_word_move16(to + at, shared + at);
            rc_word_move16(to + at + 16, shared + at + 16);
            rc_word_move16(to + at + 32, shared + at + 32);
            rc_word_move16(to + at + 48, shared + at + 48);
        }
        for (; at < last; at += 16)
            rc_word_move16(to + at, shared + at);
        rc_word_move16(to + last, shared + last);
    } else if (len >= 8) {
        rc_word_move8(to, shared);
        rc_word_move8(to + len - 8, shared + len - 8);
    } else if (len != 0) {
        uint64_t word = rc_word_load32(shared);
        if (len > 4)
            word |= (uint64_t)rc_word_load32(shared + 4) << 32;
        rc_word_put(to, word, len);
    }
}
#else
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

#endif

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
    size_t at = 0;
    uint32_t word;
    for (; at + 8 <= len; at += 8) {
        uint64_t words;
        memcpy(&words, with + at, 8);
#if RC_WORD_WIDE
        if (rc_word_wide8(shared + at) != words)
            return 0;
#else
        uint32_t halves[2] = {rc_word_load32(shared + at), rc_word_load32(shared + at + 4)};
        if (memcmp(halves, &words, 8) != 0)
            return 0;
#endif
    }
    if (at == len)
        return 1;
    memcpy(&word, with + at, 4);
    return rc_word_load32(shared + at) == word;
}

#endif
