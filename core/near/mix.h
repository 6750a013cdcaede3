/*
 * mix - the keyed 64-bit hash of the near cache.
 *
 * What:    folds of 64 x 64 -> 128 bit products, 16 bytes at a time; a few ns for a short key. Its
 *          seeds are random and secret: who chooses keys does not choose buckets.
 * Threads: pure.
 * Memory:  reads the key's own bytes only.
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

static inline uint64_t rc_mix_load64(const char *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

static inline uint64_t rc_mix_load32(const char *at)
{
    uint32_t word;
    memcpy(&word, at, 4);
    return word;
}

static inline uint64_t rc_mix(const struct rc_mix_seed *seed, const char *key, size_t len)
{
    uint64_t sum = seed->words[0], a = 0, b = 0;
    size_t left = len;
    for (; left > 16; key += 16, left -= 16)
        sum = rc_mix_fold(rc_mix_load64(key) ^ seed->words[1], rc_mix_load64(key + 8) ^ sum);
    /* The last 1 to 16 bytes, by two words that may overlap. */
    if (left >= 8) {
        a = rc_mix_load64(key);
        b = rc_mix_load64(key + left - 8);
    } else if (left >= 4) {
        a = rc_mix_load32(key);
        b = rc_mix_load32(key + left - 4);
    } else if (left > 0) {
        a = (uint64_t)(unsigned char)key[0] << 16 | (uint64_t)(unsigned char)key[left / 2] << 8 |
            (unsigned char)key[left - 1];
    }
    sum = rc_mix_fold(a ^ seed->words[2], b ^ sum);
    /* The length tells keys apart whose last words are equal. */
    return rc_mix_fold(sum ^ seed->words[3], seed->words[1] ^ (uint64_t)len);
}

#endif
