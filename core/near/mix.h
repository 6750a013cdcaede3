/*
 * mix - the keyed 64-bit hash of the near cache.
 *
 * What:    folds of 64 x 64 -> 128 bit products, 16 bytes at a time; a few ns for a short key. Its
 *          seeds are random and secret: who chooses keys does not choose buckets.
 * Threads: pure.
 * Memory:  reads the key's own bytes only.
 * Errors:  none.
 * Not:     no cryptographic hash: where its values can be seen from outside, take rc_siphash.
 */
#ifndef RC_MIX_H
#define RC_MIX_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rc_mix_seed {
    uint64_t words[4];
};

static inline uint64_t rc_mix_fold(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Bytes as a number, the first one lowest, on every machine. */
static inline uint64_t rc_mix_order(uint64_t word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}

static inline uint64_t rc_mix_load(const char *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
    return rc_mix_order(word);
}

static inline void rc_mix_store(char *at, uint64_t word)
{
    word = rc_mix_order(word);
    memcpy(at, &word, 8);
}

static inline uint32_t rc_mix_load4(const char *at)
{
    uint32_t word;
    memcpy(&word, at, 4);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap32(word);
#endif
    return word;
}

/* Less than 8 bytes, and zeroes behind them. Reads no byte more, and some of them twice: what
   stands in two loads is the same in both. In registers: a word that was put together in memory is
   not there yet when it is loaded. */
static inline uint64_t rc_mix_load_part(const char *at, size_t len)
{
    if (len >= 4)
        return rc_mix_load4(at) | (uint64_t)rc_mix_load4(at + len - 4) << 8 * (len - 4);
    if (len == 0)
        return 0;
    return (uint64_t)(uint8_t)at[0] | (uint64_t)(uint8_t)at[len / 2] << 8 * (len / 2) |
           (uint64_t)(uint8_t)at[len - 1] << 8 * (len - 1);
}

/* The last 0 to 16 bytes as two words, zeroes behind them; then the length, which tells apart what
   the zeroes made equal. */
static inline uint64_t rc_mix_end(const struct rc_mix_seed *seed, uint64_t sum, uint64_t a,
                                  uint64_t b, size_t len)
{
    sum = rc_mix_fold(a ^ seed->words[2], b ^ sum);
    return rc_mix_fold(sum ^ seed->words[3], seed->words[1] ^ (uint64_t)len);
}

static inline uint64_t rc_mix_step(const struct rc_mix_seed *seed, uint64_t sum, const char *at)
{
    return rc_mix_fold(rc_mix_load(at) ^ seed->words[1], rc_mix_load(at + 8) ^ sum);
}

static inline uint64_t rc_mix(const struct rc_mix_seed *seed, const char *key, size_t len)
{
    uint64_t sum = seed->words[0], a, b = 0;
    size_t left = len;
    for (; left > 16; key += 16, left -= 16)
        sum = rc_mix_step(seed, sum, key);
    if (left < 8) {
        a = rc_mix_load_part(key, left);
    } else {
        a = rc_mix_load(key);
        if (left > 8) /* the end of the last 8 bytes, some of which are a's */
            b = rc_mix_load(key + left - 8) >> 8 * (16 - left);
    }
    return rc_mix_end(seed, sum, a, b, len);
}

/* The same of a text that was written by rc_mix_join. */
static inline uint64_t rc_mix_joined(const struct rc_mix_seed *seed, const char *text, size_t len)
{
    uint64_t sum = seed->words[0];
    size_t left = len;
    for (; left > 16; text += 16, left -= 16)
        sum = rc_mix_step(seed, sum, text);
    return rc_mix_end(seed, sum, rc_mix_load(text), rc_mix_load(text + 8), len);
}

/* The last `left` < 8 bytes of a text, and zeroes behind them. */
static inline uint64_t rc_mix_load_last(const char *text, size_t len, size_t left)
{
    if (len < 8)
        return len == 0 ? 0 : rc_mix_load_part(text + len - left, left);
    return rc_mix_load(text + len - 8) >> 1 >> (63 - 8 * left); /* 0 where there are none */
}

/* The bytes behind the last multiple of 8, as the beginning of a word. */
static inline uint64_t rc_mix_part(const char *text, size_t len)
{
    return rc_mix_load_last(text, len, len & 7);
}

/* `len` bytes, a multiple of 8. */
static inline __attribute__((always_inline)) void rc_mix_copy(char *to, const char *from,
                                                              size_t len)
{
    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = rc_mix_load(from + at);
        __asm__("" : "+r"(word)); /* or gcc copies by rep movsq, which takes 10 ns to begin */
        rc_mix_store(to + at, word);
    }
}

/* Writes two texts as one, with zeroes behind it: up to 24 bytes more than it is long. By whole
   words at multiples of 8, put together in registers: a word that is read back soon must have been
   written as one, or the load waits until the parts are in memory. One word may have bytes of both
   texts; what comes behind it is loaded as it stands in the second one.
   Of the first text the bytes behind its last multiple of 8 are given (rc_mix_part, and how many);
   `to` is behind the others. */
static inline __attribute__((always_inline)) void
rc_mix_join(char *to, uint64_t part, size_t part_len, const char *second, size_t second_len)
{
    size_t shift = 8 * part_len;
    if (second_len >= 8) {
        size_t left = (part_len + second_len) & 7, whole = part_len + second_len - left;
        rc_mix_store(to, part | rc_mix_load(second) << shift);
        rc_mix_copy(to + 8, second + 8 - part_len, whole - 8);
        /* 0 where nothing is left */
        rc_mix_store(to + whole, rc_mix_load(second + second_len - 8) >> 1 >> (63 - 8 * left));
        rc_mix_store(to + whole + 8, 0);
    } else {
        uint64_t word = rc_mix_load_part(second, second_len);
        rc_mix_store(to, part | word << shift);
        rc_mix_store(to + 8, word >> 1 >> (63 - shift)); /* 0 where both fit in one */
        rc_mix_store(to + 16, 0);
    }
}

#endif
