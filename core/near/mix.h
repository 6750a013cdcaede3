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

/* Less than 8 bytes, and zeroes behind them. Reads no byte more. */
static inline uint64_t rc_mix_load_part(const char *at, size_t len)
{
    uint64_t word = 0;
    if ((len & 4) != 0)
        memcpy(&word, at, 4);
    if ((len & 2) != 0)
        memcpy((char *)&word + (len & 4), at + (len & 4), 2);
    if ((len & 1) != 0)
        memcpy((char *)&word + (len & 6), at + (len & 6), 1);
    return rc_mix_order(word);
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

/* Writes two texts as one, with zeroes behind it: up to 24 bytes more than it is long. By whole
   words at multiples of 8, shifted together in registers: a word that is read back soon must have
   been written as one, or the load waits until the parts are in memory. */
static inline void rc_mix_join(char *to, const char *first, size_t first_len, const char *second,
                               size_t second_len)
{
    for (; first_len >= 8; to += 8, first += 8, first_len -= 8)
        rc_mix_store(to, rc_mix_load(first));
    uint64_t carry = rc_mix_load_part(first, first_len);
    unsigned shift = 8 * (unsigned)first_len;
    for (; second_len >= 8; to += 8, second += 8, second_len -= 8) {
        uint64_t word = rc_mix_load(second);
        rc_mix_store(to, carry | word << shift);
        carry = word >> 1 >> (63 - shift);
    }
    uint64_t last = rc_mix_load_part(second, second_len);
    rc_mix_store(to, carry | last << shift);
    rc_mix_store(to + 8, last >> 1 >> (63 - shift));
    rc_mix_store(to + 16, 0);
}

#endif
